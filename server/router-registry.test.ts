import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Membership } from '../registry/ports.ts';
import type { Incarnation, RouterId } from './core/ids.ts';
import { Departure } from './router-registry.ts';

test('a router that left while it stops does not begin anew when its next renewal is told that it is no member', async () => {
  const told: Error[] = [];
  const left: string[] = [];
  const departure = new Departure((error) => told.push(error));
  const membership = departure.noticed({
    routers: () => Promise.resolve([]),
    leave: async (router: RouterId) => {
      // The lease's thread may be told before the answer is here.
      departure.lapsed(new Error('incarnation-dead'));
      left.push(router);
    },
  } as unknown as Membership);
  assert.deepEqual(await membership.routers(), []);
  const lapse = new Error('lease-lapsed');
  departure.lapsed(lapse);
  assert.deepEqual(told, [lapse], 'who has not left begins anew');
  await membership.leave('a' as RouterId, 'b' as Incarnation);
  departure.lapsed(new Error('incarnation-dead'));
  assert.deepEqual([told, left], [[lapse], ['a']]);
});
