/** Free loopback ports. */
import { createServer } from 'node:net';

/**
 * `count` different TCP ports that nobody listens on at this moment, from below the kernel's ephemeral range: a port out of that range may
 * become the source port of somebody's connection before our child binds it.
 */
export async function freePorts(count: number): Promise<number[]> {
  const found: number[] = [];
  for (let attempt = 0; found.length < count; attempt += 1) {
    if (attempt > 1000) throw new Error('no free port found');
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (!found.includes(port) && (await isFree(port))) found.push(port);
  }
  return found;
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.once('error', () => resolve(false));
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  return promise;
}
