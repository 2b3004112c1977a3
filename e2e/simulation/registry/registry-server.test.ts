/** The simulated registry is an honest model: it passes what SQLite and Redis pass. */
import { seededRandom } from '../../../backends/virtual-clock.ts';
import { registryConformance } from '../../../registry/conformance.ts';
import type { RegistryUnderTest } from '../../../registry/conformance/world.ts';
import type { Registry } from '../../../registry/ports.ts';
import { registryPorts } from './registry-ports.ts';
import { RegistryServer } from './registry-server.ts';

function open(): Promise<RegistryUnderTest> {
  let wallMs = 1_800_000_000_000;
  const random = seededRandom(1);
  const server = new RegistryServer({ nowMs: () => wallMs, random }, { vpoolName: 'vpool1', inlineBytesMax: 4096 });
  const connect = (): Registry => ({
    vpool: server.vpool,
    ...registryPorts(
      server,
      {
        change: async (request) => server.execute(request, wallMs).outcome as never,
        read: async (work) => work(),
      },
      random,
    ),
    health: () => null,
    async *verify() {
      yield* server.records.problems();
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  let registry = connect();
  return Promise.resolve({
    get registry() {
      return registry;
    },
    reopen: () => {
      registry = connect();
      return Promise.resolve();
    },
    wallMs: () => wallMs,
    advanceWallMs: (byMs) => {
      wallMs += byMs;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
}

registryConformance('simulated registry', open);
