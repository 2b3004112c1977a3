import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../backends/virtual-clock.ts';
import type { Namespace } from '../../registry/ports.ts';
import { errorCode } from '../core/errors.ts';
import type { FileId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import type { OpenObjects } from './open-objects.ts';
import type { OwnedRecords } from './owned-records.ts';
import { OwnerCache } from './owner-cache.ts';
import { HOLD_MS_MAX } from './peer-port.ts';
import { Repetitions } from './repetitions.ts';
import { RouterMoveHost } from './router-move-host.ts';

const DISK = 100 as FileId;

test('a hold waits for changes that end, and not for one that waits for a registry that is away', async () => {
  const clock = new VirtualClock();
  const served = { changers: 2 };
  const objects = { hold: () => () => undefined, get: () => served } as unknown as OpenObjects;
  const host = new RouterMoveHost({
    namespace: {} as Namespace,
    objects,
    owners: new OwnerCache(),
    repetitions: new Repetitions(clock, 16),
    records: {} as OwnedRecords,
    clock,
    logger: silentLogger,
  });
  const ended = clock.run(host.hold(DISK).changesEnded());
  clock.after(100, () => {
    served.changers = 0;
  });
  await ended;
  const tookMs = clock.monotonicMs();
  assert.ok(tookMs >= 100 && tookMs < HOLD_MS_MAX, `${tookMs} ms`);
  served.changers = 1;
  await assert.rejects(clock.run(host.hold(DISK).changesEnded()), (error) => errorCode(error) === 'object-busy');
  assert.ok(clock.monotonicMs() - tookMs < 1.5 * HOLD_MS_MAX);
});
