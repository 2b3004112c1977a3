/** Two hosts that want the same lock at the same moment, through two routers. */
import assert from 'node:assert/strict';

import { GUARDED, made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import type { TwoHosts } from './two-hosts.ts';

/** esxi 34: `rounds` races for a lock of its own each. */
export async function lockRace(hosts: TwoHosts, rounds: number): Promise<void> {
  const { h1, h2 } = hosts;
  const directory = await hosts.directory();
  let wins = 0;
  for (let round = 0; round < rounds; round += 1) {
    const name = `.lck-${round}`;
    const results = await Promise.all([h1.create(directory, name, GUARDED), h2.create(directory, name, GUARDED)]);
    const won = results.filter(({ status }) => status === Status.OK);
    const lost = results.filter(({ status }) => status === Status.EXIST);
    assert.deepEqual([won.length, lost.length], [1, 1], `round ${round}`);
    if (won[0] === results[0]) wins += 1;
    const winner = made(won[0]!);
    for (const client of [h1, h2]) {
      const found = succeeded(await client.lookup(directory, name));
      assert.deepEqual(found.handle, winner.handle);
      assert.equal(found.attributes?.fileid, winner.fileid);
    }
  }
  // Both can win: else it was no race.
  assert.ok(rounds < 50 || (wins > 0 && wins < rounds), `A won ${wins} of ${rounds}`);
}
