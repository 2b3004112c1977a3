import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ApplianceError } from '../core/errors.ts';
import type { Timestamp } from '../core/time.ts';
import { Status } from '../nfsd/file-system.ts';
import type { Caller, SetAttributes } from '../nfsd/file-system.ts';
import { AttributeCalls } from './attribute-calls.ts';
import type { Everywhere } from './object-places.ts';
import type { Remote } from './object-places.ts';
import type { ServedObject } from './open-objects.ts';
import type { RouterCore } from './router-core.ts';

const CTIME: Timestamp = { seconds: 7, nanoseconds: 0 };
const CHANGES: SetAttributes = { mode: 0o600, uid: null, gid: null, sizeBytes: 4096, atime: null, mtime: null };
const CALLER = { uid: 0, gid: 0, gids: [], address: '10.0.0.1', operationId: () => 'call' } as unknown as Caller;

/** An object whose size cannot be changed because it is being given away, `holds` times; setting its mode moves its ctime. */
class World {
  readonly done: string[] = [];
  readonly calls: AttributeCalls;
  readonly served: ServedObject;
  goesAway = false;
  holds = 1;

  constructor() {
    let ctime = CTIME;
    const inode = { fileid: 100, type: 'file', class: 'volume', mode: 0o666, uid: 0, gid: 0, ctime };
    this.served = {
      unlinked: false,
      inode,
      users: 0,
      changers: 0,
      driven: {
        fileid: 100,
        setAttributes: ({ sizeBytes }: { sizeBytes: number | null }) => {
          if (this.holds > 0) {
            this.holds -= 1;
            return Promise.resolve({ kind: 'refused', error: new ApplianceError('object-held', 'it moves', { retryable: true }) });
          }
          this.done.push(`size ${sizeBytes} here`);
          return Promise.resolve({ kind: 'written' });
        },
      },
      attributes: () => ({ sizeBytes: 0, ctime, mtime: CTIME }),
    } as unknown as ServedObject;
    const core = {
      now: () => CTIME,
      mutation: () => ({}),
      guard: (step: () => unknown) => step(),
      registry: {
        namespace: {
          setAttributes: (_mutation: unknown, _fileid: unknown, { mode }: { mode: number }) => {
            this.done.push(`mode ${mode.toString(8)}`);
            ctime = { seconds: ctime.seconds + 1, nanoseconds: 0 };
            return Promise.resolve({ kind: 'changed', before: inode, after: inode });
          },
        },
      },
      objects: { observe: () => undefined },
      places: { cluster: null, lease: { valid: true } },
      anywhere: async <T>(_handle: unknown, everywhere: Everywhere<T>): Promise<T> => {
        for (;;) {
          assert.equal(this.served.changers, 0, 'who gives it away waits for nobody');
          const answer = this.goesAway ? await everywhere.there(this.#remote()) : await everywhere.here(this.served);
          if (answer === null) continue;
          return this.goesAway ? (answer as { result: T }).result : (answer as T);
        }
      },
    } as unknown as RouterCore;
    this.calls = new AttributeCalls(core, () => ({ totalBytes: 0, freeBytes: 0 }), 2 ** 40);
  }

  #remote(): Remote {
    const setattr = (_target: unknown, _caller: unknown, changes: SetAttributes, guard: Timestamp | null): unknown => {
      this.done.push(`size ${changes.sizeBytes}, mode ${changes.mode}, ${guard === null ? 'unguarded' : 'guarded'} there`);
      return { kind: 'done', result: { status: Status.OK, wcc: { before: null, after: null } } };
    };
    return { peer: { setattr }, target: {} } as unknown as Remote;
  }

  async run(guard: Timestamp | null): Promise<number | null> {
    const answer = await this.calls.changeServed(CALLER, this.served, CHANGES, guard, null);
    assert.deepEqual([this.served.users, this.served.changers], [0, 0]);
    return answer?.status ?? null;
  }
}

test('a guarded SETATTR of mode and size that is held in its middle is done to its end, here or where the object goes, and its own half is no change of others', async () => {
  for (const holds of [1, 3]) {
    const world = new World();
    world.holds = holds;
    assert.equal(await world.run(CTIME), Status.OK);
    assert.deepEqual(world.done, ['mode 600', 'size 4096 here']);
  }
  const world = new World();
  world.goesAway = true;
  assert.equal(await world.run(CTIME), Status.OK);
  assert.deepEqual(world.done, ['mode 600', 'size 4096, mode null, unguarded there']);
});

test('without a guard a SETATTR that is held is asked for again as a whole; with a wrong one nothing is done', async () => {
  const world = new World();
  assert.equal(await world.run(null), null);
  const guarded = new World();
  assert.equal(await guarded.run({ seconds: 6, nanoseconds: 0 }), Status.NOT_SYNC);
  assert.deepEqual(guarded.done, []);
});
