/**
 * `node e2e/services/relay-main.ts PORT SOCKET_FILE`: the end of a `NetworkPath` inside a private network. Runs until it is killed.
 * `node e2e/services/relay-main.ts HOST PORT TARGET_HOST TARGET_PORT`: a relay between two places of one network.
 */
import { NetworkPath } from './network-path.ts';

const [first = '', second = '', targetHost, targetPort] = process.argv.slice(2);
if (second === '') throw new Error('usage: relay-main.ts PORT SOCKET_FILE, or HOST PORT TARGET_HOST TARGET_PORT');
if (targetHost === undefined) await NetworkPath.fromSocketFile(Number(first), second);
else await NetworkPath.between({ host: first, port: Number(second) }, { host: targetHost, port: Number(targetPort) });
process.stdout.write('listening\n');
