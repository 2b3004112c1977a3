import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { ObjectUuid } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { CededSegments } from '../object-router/driver-port.ts';
import type { BlockObject } from './block-object.ts';
import { ObjectMoveSource } from './move-source.ts';
import type { ObjectKeeper } from './object-keeper.ts';

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc') as () => void;

/** Gives an object away of which nobody else knows anything; `log` stands for all that comes with it. */
function ceded(): { left: CededSegments; object: WeakRef<object>; log: WeakRef<object> } {
  const object = { uuid: '0123456789abcdef0123456789abcdef' as ObjectUuid, paceWrites: () => undefined };
  const log = { watch: () => undefined, lastBegunSegment: 0 };
  const source = new ObjectMoveSource(
    {
      files: { segmentsOf: () => [], segment: () => null } as unknown as SegmentFiles,
      clock: new VirtualClock(),
      logger: silentLogger,
      object: object as unknown as BlockObject,
      log: log as unknown as ObjectLog,
      keeper: { cede: () => undefined, unpin: () => undefined } as unknown as ObjectKeeper,
    },
    () => Buffer.alloc(8),
    { thawed: () => undefined, ceded: () => undefined },
  );
  return { left: source.cede(), object: new WeakRef(object), log: new WeakRef(log) };
}

test('what is left of an object that was given away, which is kept for long, keeps neither the object with its map nor its log', async () => {
  const { left, object, log } = ceded();
  for (let turn = 0; turn < 10 && (object.deref() ?? log.deref()) !== undefined; turn += 1) {
    await setImmediate();
    collectGarbage();
  }
  assert.equal(object.deref(), undefined);
  assert.equal(log.deref(), undefined);
  assert.equal(await left.read(1, 0, 4), null);
});
