/** `node e2e/services/relay-main.ts PORT SOCKET_FILE`: the end of a `NetworkPath` inside a private network. Runs until it is killed. */
import { NetworkPath } from './network-path.ts';

const [port = '', socketFile] = process.argv.slice(2);
if (socketFile === undefined) throw new Error('usage: relay-main.ts PORT SOCKET_FILE');
await NetworkPath.fromSocketFile(Number(port), socketFile);
process.stdout.write('listening\n');
