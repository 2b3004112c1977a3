/** `node e2e/services/hostile-store-main.ts HOST PORT SEED`: a backend without faults, for networks where its host is a namespace of its own. Prints its settings as JSON; runs until it is killed. */
import { MemoryStore } from '../../backends/memory/memory-store.ts';
import { HostileStore } from '../hostile-store/hostile-store.ts';

const [host = '', port = '', seed] = process.argv.slice(2);
if (seed === undefined) throw new Error('usage: hostile-store-main.ts HOST PORT SEED');
const store = await HostileStore.start(Number(seed), new MemoryStore(), { host, port: Number(port) });
process.stdout.write(`${JSON.stringify(store.environment)}\n`);
