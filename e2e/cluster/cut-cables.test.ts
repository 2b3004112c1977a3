/** Routers, Redis and the backend as hosts of a private network, whose cables are pulled: nobody is refused, packets vanish. All cuts, and longer ones: `npm run soak:cluster -- --only cables`. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { inPrivateNetwork } from './cut-cables-in-network.ts';
import { CABLE_HOSTS } from './cut-cables.ts';
import { PrivateNetwork } from './private-network.ts';

test('a cable is pulled between A and B, A and Redis, A and the backend, and of A alone, in a move under load: one owner, running, nothing acknowledged lost', async (t) => {
  const network = stackOf(t).use(await PrivateNetwork.create(CABLE_HOSTS));
  const directory = await scratchFor(t, 'cables');
  // Not gone with the test: what goes wrong here is rare.
  const kept = join(tmpdir(), 'vferry-violations', `cables-${Date.now()}`);
  const { ok, lines } = await inPrivateNetwork(network, {
    directory,
    seed: 20_261_201,
    cuts: 'A-B:3,A-redis:3,A-backend:3,A:9',
    kept,
    say: (line) => t.diagnostic(line),
  });
  assert.ok(ok, lines.join('\n'));
});
