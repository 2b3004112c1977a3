/** Everything that can break in OpenStack Swift, under a router at work. */
import { test } from 'node:test';

import { NetworkPath } from '../services/network-path.ts';
import { stackOf } from '../test-stack.ts';
import { startSwift } from './backend-fixture.ts';
import { type BackendFault, faultsOver } from './faults-over.ts';
import { killedDuringOutage, rottenObject } from './outages-over.ts';

test('OpenStack Swift breaks under a datastore', async (t) => {
  // The proxy gives a server that stands still up after 3 s, not 10, so that this test ends.
  const swift = await startSwift(stackOf(t), { nodeTimeoutSeconds: 3 });
  const { service } = swift;
  const path = stackOf(t).use(await NetworkPath.to(service.ports.proxy));
  const stopped = (part: 'object' | 'proxy' | 'memcached', name: string): BackendFault => ({
    name,
    breakIt: () => service.stop(part),
    repairIt: () => service.startPart(part),
  });
  await faultsOver(
    t,
    swift,
    'faults',
    [
      stopped('object', 'the object server is killed'),
      {
        name: 'the object server stands still',
        breakIt: () => service.pause('object'),
        repairIt: () => service.resume('object'),
      },
      { name: 'the device is full', breakIt: () => service.fill(true), repairIt: () => service.fill(false) },
      stopped('proxy', 'the proxy is killed'),
      stopped('memcached', 'memcached is killed, and every token with it'),
      {
        name: 'the container server is killed',
        breakIt: () => service.stop('container'),
        repairIt: () => service.startPart('container'),
        stopsUploads: false,
      },
      {
        name: 'the proxy takes 5 requests a second',
        breakIt: () => service.tune({ ratelimit: 5 }),
        repairIt: () => service.tune({ ratelimit: null }),
        stopsUploads: false,
      },
      { name: 'the network is cut', breakIt: () => path.cut(), repairIt: () => path.restore() },
    ],
    path.port,
  );

  await t.test('a router that is killed while Swift is away starts without it and loses nothing', async (sub) => {
    await killedDuringOutage(sub, swift, 'both');
  });

  await t.test('bytes that flipped on Swift are never data, and fsck names the object', async (sub) => {
    await rottenObject(sub, swift, 'rotten');
  });
});
