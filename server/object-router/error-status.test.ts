import assert from 'node:assert/strict';
import { test } from 'node:test';

import { StoreError } from '../../backends/object-store.ts';
import { ApplianceError } from '../core/errors.ts';
import { Status } from '../nfsd/file-system.ts';
import { statusOfError } from './error-status.ts';

test('whatever keeps the backend from answering, a client is asked to come back and gets no error', () => {
  for (const errorClass of ['retry', 'absent', 'denied'] as const) {
    assert.equal(statusOfError(new StoreError(errorClass, 'get vf-vpool1-x/seg-1')), Status.JUKEBOX, errorClass);
  }
});

test('damage and full disks are told as what they are', () => {
  assert.equal(statusOfError(new StoreError('corrupt', 'x')), Status.IO);
  assert.equal(statusOfError(new ApplianceError('block-corrupt', 'x')), Status.IO);
  assert.equal(statusOfError(new StoreError('no-space', 'x')), Status.NOSPC);
  assert.equal(statusOfError(new ApplianceError('ENOSPC', 'x')), Status.NOSPC);
});

test('what was removed while an operation was under way is STALE, as it is afterwards', () => {
  assert.equal(statusOfError(new ApplianceError('object-gone', 'x')), Status.STALE);
});
