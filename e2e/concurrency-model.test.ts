import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RegisterModel } from './concurrency-model.ts';

function sectorOf(model: RegisterModel, write: number): Buffer {
  return write === 0 ? Buffer.alloc(512) : model.payload(write, 0, 1);
}

test('a read may see a write that is under way, or what was there before', () => {
  const model = new RegisterModel(1, 1);
  const write = model.beginWrite(0, 1);
  const began = model.now();
  assert.equal(model.checkRead(began, 0, sectorOf(model, 0)), null);
  assert.equal(model.checkRead(began, 0, sectorOf(model, write)), null);
});

test('a read may not see what was replaced before it began', () => {
  const model = new RegisterModel(1, 1);
  model.endWrite(model.beginWrite(0, 1));
  assert.match(model.checkRead(model.now(), 0, sectorOf(model, 0)) ?? '', /write 1 came wholly after it/);
});

test('once a read has seen a write that is under way, a later read may not see what it replaced', () => {
  const model = new RegisterModel(1, 1);
  const write = model.beginWrite(0, 1);
  assert.equal(model.checkRead(model.now(), 0, sectorOf(model, write)), null);
  assert.match(model.checkRead(model.now(), 0, sectorOf(model, 0)) ?? '', /came wholly after/);
});

test('of two writes at the same time either may win', () => {
  const model = new RegisterModel(1, 1);
  const writes = [model.beginWrite(0, 1), model.beginWrite(0, 1)];
  for (const write of writes) model.endWrite(write);
  for (const write of writes) assert.equal(model.checkRead(model.now(), 0, sectorOf(model, write)), null);
});

test('a sector with parts of two writes is torn, and one with the bytes of another sector is foreign', () => {
  const model = new RegisterModel(1, 2);
  const [first, second] = [model.beginWrite(0, 1), model.beginWrite(0, 1)];
  const torn = Buffer.concat([sectorOf(model, first).subarray(0, 256), sectorOf(model, second).subarray(256)]);
  assert.match(model.checkRead(model.now(), 0, torn) ?? '', /torn/);
  assert.match(model.checkRead(model.now(), 1, sectorOf(model, first)) ?? '', /never wrote it/);
});
