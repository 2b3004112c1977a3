/** A client that sends every call to the next router: what works with it works whatever router a call meets. */
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';

/** MOUNT calls: each router has a mount list of its own. */
const AT_HOME = new Set(['mount', 'unmount', 'unmountAll', 'mounts', 'exports']);

/** Takes the clients over: `close` closes all. MOUNT calls and `rpc`, for raw calls, are the first one's. */
export function clientByTurns(clients: readonly NfsClient[]): NfsClient {
  const [first] = clients;
  if (first === undefined) throw new Error('no clients to take turns');
  let turn = 0;
  return new Proxy(first, {
    get(_target, property): unknown {
      if (property === 'close') return () => Promise.all(clients.map((client) => client.close()));
      const value: unknown = Reflect.get(first, property, first);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        turn = (turn + 1) % clients.length;
        const client = AT_HOME.has(String(property)) ? first : (clients[turn] ?? first);
        return Reflect.apply(Reflect.get(client, property, client) as (...args: unknown[]) => unknown, client, args);
      };
    },
  });
}
