import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import { systemClock } from '../core/node-time.ts';
import { RpcServer } from '../oncrpc/rpc-server.ts';
import { PortTable } from './port-table.ts';
import { PortmapProgram } from './portmap-program.ts';
import { nfsMappings, registerAll, SystemPortmapper, unregisterAll } from './register-portmap.ts';

test('registration with a port mapper over TCP: mappings come, those of others stay theirs, and go again', async () => {
  const table = new PortTable();
  table.set({ program: 100_003, version: 3, netid: 'udp', port: 999 });
  const portmap = new PortmapProgram({ table, clock: systemClock }, { advertisedAddress: '127.0.0.1', advertisedAddress6: '::1' });
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  try {
    const { port } = await server.listenTcp({ host: '127.0.0.1', port: 0, programs: [portmap] });
    const rpcbind = new SystemPortmapper({ host: '127.0.0.1', port, timeoutMs: 240_000 });
    const mappings = nfsMappings({ nfsPort: 2049, mountPort: 20_048 }, ['tcp', 'tcp6', 'udp']);
    const refused = await registerAll(rpcbind, mappings);
    assert.deepEqual(refused, [{ program: 100_003, version: 3, netid: 'udp', port: 2049 }]);
    assert.equal(table.find(100_003, 3, 'tcp')?.port, 2049);
    assert.equal(table.find(100_003, 3, 'tcp6')?.port, 2049);
    for (const version of [1, 2, 3]) assert.equal(table.find(100_005, version, 'tcp')?.port, 20_048);
    assert.deepEqual(await registerAll(rpcbind, mappings), refused, 'again after a crash: the same');
    await unregisterAll(
      rpcbind,
      mappings.filter((mapping) => !refused.includes(mapping)),
    );
    assert.deepEqual(
      table.list().filter((m) => m.netid !== 'udp'),
      [],
    );
    assert.equal(table.find(100_003, 3, 'udp')?.port, 999);
    assert.equal(table.find(100_005, 3, 'udp'), null);
  } finally {
    await server.close(1000);
  }
});

test('a port mapper that is not there is an error of the environment', async () => {
  const server = new RpcServer({ clock: systemClock, logger: silentLogger });
  const { port } = await server.listenTcp({ host: '127.0.0.1', port: 0, programs: [] });
  await server.close(100);
  const rpcbind = new SystemPortmapper({ host: '127.0.0.1', port, timeoutMs: 240_000 });
  await assert.rejects(rpcbind.set({ program: 1, version: 1, netid: 'tcp', port: 1 }), { code: 'rpc-connect-failed' });
});
