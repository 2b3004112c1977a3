import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import { ApplianceError } from '../core/errors.ts';
import { Stability, Status } from '../nfsd/file-system.ts';
import type { Caller } from '../nfsd/file-system.ts';
import { DataCalls } from './data-calls.ts';
import type { ServedObject } from './open-objects.ts';
import { Repetitions } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';

test('a WRITE that waited here until its object was given away is as old as it is: it may not begin elsewhere as if it had just come', async () => {
  const clock = new VirtualClock();
  clock.advance(1000);
  const arrivedMs = clock.monotonicMs();
  const held = Promise.withResolvers<{ kind: 'refused'; error: Error }>();
  const served = {
    unlinked: false,
    inode: { type: 'file', mode: 0o666, uid: 0, gid: 0 },
    ownIo: { writes: 0 },
    driven: { fileid: 100, write: () => held.promise },
    attributes: () => ({}),
  } as unknown as ServedObject;
  let sinceMs = Number.NaN;
  const core = {
    clock,
    now: () => ({ seconds: 0, nanoseconds: 0 }),
    served: () => served,
    places: { cluster: { repetitions: new Repetitions(clock, 16) }, lease: { valid: true } },
    anywhere: (_handle: unknown, _everywhere: unknown, _open: boolean, startedMs: number) => {
      sinceMs = startedMs;
      return Promise.resolve(Status.JUKEBOX);
    },
  } as unknown as RouterCore;
  const calls = new DataCalls(core, { fileSizeMaxBytes: 2 ** 40, allWritesStable: false });
  const caller = { uid: 0, gid: 0, gids: [], writeIdentity: () => undefined } as unknown as Caller;
  const answer = calls.write(caller, Buffer.alloc(8), 0, 512, [Buffer.alloc(512)], Stability.FILE_SYNC, null);
  clock.advance(20_000);
  held.resolve({ kind: 'refused', error: new ApplianceError('object-held', 'it is on its way to another router', { retryable: true }) });
  assert.equal((await answer)?.status, Status.JUKEBOX);
  assert.equal(sinceMs, arrivedMs);
});
