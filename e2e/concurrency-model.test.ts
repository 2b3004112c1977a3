import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { RegisterModel } from './concurrency-model.ts';

function sectorOf(model: RegisterModel, write: number, sector = 0): Buffer {
  return write === 0 ? Buffer.alloc(512) : model.payload(write, sector, 1);
}

/** A READ of one sector, begun and answered now. */
function problemOf(model: RegisterModel, data: Buffer, began = model.beginRead(), sector = 0): string {
  return model.checkRead(began, sector, data)?.problem ?? '';
}

test('a read may see a write that is under way, or what was there before', () => {
  const model = new RegisterModel(1, 1);
  const write = model.beginWrite(0, 1);
  const reads = [model.beginRead(), model.beginRead()];
  assert.equal(problemOf(model, sectorOf(model, 0), reads[0]), '');
  assert.equal(problemOf(model, sectorOf(model, write), reads[1]), '');
});

test('a read may not see what was replaced before it began', () => {
  const model = new RegisterModel(1, 1);
  model.endWrite(model.beginWrite(0, 1));
  assert.match(problemOf(model, sectorOf(model, 0)), /write 1 came wholly after it/);
});

test('a read that began before a write was over may see what it replaced, and one that began after may not', () => {
  const model = new RegisterModel(1, 1);
  const write = model.beginWrite(0, 1);
  const early = model.beginRead();
  model.endWrite(write);
  const late = model.beginRead();
  assert.equal(problemOf(model, sectorOf(model, 0), early), '');
  assert.match(problemOf(model, sectorOf(model, 0), late), /came wholly after/);
});

test('once a read has seen a write that is under way, a later read may not see what it replaced', () => {
  const model = new RegisterModel(1, 1);
  const write = model.beginWrite(0, 1);
  assert.equal(problemOf(model, sectorOf(model, write)), '');
  assert.match(problemOf(model, sectorOf(model, 0)), /came wholly after/);
});

test('of two writes at the same time either may win', () => {
  const model = new RegisterModel(1, 1);
  const writes = [model.beginWrite(0, 1), model.beginWrite(0, 1)];
  for (const write of writes) model.endWrite(write);
  for (const write of writes) assert.equal(problemOf(model, sectorOf(model, write)), '');
});

test('a sector with parts of two writes is torn, and one with the bytes of another sector is foreign', () => {
  const model = new RegisterModel(1, 2);
  const [first, second] = [model.beginWrite(0, 1), model.beginWrite(0, 1)];
  const torn = Buffer.concat([sectorOf(model, first).subarray(0, 256), sectorOf(model, second).subarray(256)]);
  assert.match(problemOf(model, torn), /torn/);
  assert.match(problemOf(model, sectorOf(model, first), undefined, 1), /never wrote it/);
});

test('the history of a sector names every write of it with its times', () => {
  const model = new RegisterModel(1, 8);
  model.endWrite(model.beginWrite(0, 4));
  model.beginWrite(3, 2);
  model.beginWrite(4, 4);
  assert.deepEqual(
    model.history(3).map(({ write, ended }) => [write, ended !== null]),
    [
      [0, true],
      [1, true],
      [2, false],
    ],
  );
});

test('what a sector costs does not grow with its writes, only with reads that stay under way', () => {
  const model = new RegisterModel(1, 1);
  for (let turn = 0; turn < 1000; turn += 1) model.endWrite(model.beginWrite(0, 1));
  assert.equal(model.kept(0), 1);
  const began = model.beginRead();
  for (let turn = 0; turn < 10; turn += 1) model.endWrite(model.beginWrite(0, 1));
  assert.equal(model.kept(0), 11);
  assert.equal(problemOf(model, sectorOf(model, 1000), began), '');
  model.endWrite(model.beginWrite(0, 1));
  assert.equal(model.kept(0), 1);
});

/** The same question, asked of every write there ever was. */
class PlainModel {
  readonly #writes: { readonly first: number; readonly sectors: number; readonly began: number; ended: number }[];
  #now = 1;

  constructor(sectors: number) {
    this.#writes = [{ first: 0, sectors, began: 0, ended: 0 }];
  }

  tick(): number {
    this.#now += 1;
    return this.#now;
  }

  beginWrite(first: number, sectors: number): number {
    this.#writes.push({ first, sectors, began: this.tick(), ended: Number.POSITIVE_INFINITY });
    return this.#writes.length - 1;
  }

  endWrite(write: number): void {
    const known = this.#writes[write]!;
    known.ended = Math.min(known.ended, this.tick());
  }

  /** Each of `seen` is the write that a sector showed. */
  checkRead(began: number, firstSector: number, seen: readonly number[]): number | null {
    const ended = this.tick();
    for (const [index, write] of seen.entries()) {
      const sector = firstSector + index;
      const of = this.#writes.filter(({ first, sectors }) => sector >= first && sector < first + sectors);
      const known = this.#writes[write];
      if (known === undefined || !of.includes(known)) return sector;
      if (of.some((other) => other.began > known.ended && other.ended < began)) return sector;
      known.ended = Math.min(known.ended, ended);
    }
    return null;
  }
}

test('the model that forgets says the same of random histories as one that remembers everything', () => {
  const SECTORS = 4;
  const step = fc.record({
    kind: fc.constantFrom('write', 'write', 'answer', 'answer', 'read', 'seen', 'seen'),
    at: fc.nat(1000),
    count: fc.nat(3),
    back: fc.nat(6),
  });
  const verdicts = { fine: 0, wrong: 0 };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80, minLength: 10 }), (steps) => {
      const model = new RegisterModel(1, SECTORS);
      const plain = new PlainModel(SECTORS);
      const writing: number[] = [];
      const reading: { readonly began: number; readonly plainBegan: number }[] = [];
      const written: number[][] = Array.from({ length: SECTORS }, () => [0]);
      for (const { kind, at, count, back } of steps) {
        const first = at % SECTORS;
        const sectors = Math.min(1 + count, SECTORS - first);
        if (kind === 'write') {
          const write = model.beginWrite(first, sectors);
          assert.equal(plain.beginWrite(first, sectors), write);
          writing.push(write);
          for (let sector = first; sector < first + sectors; sector += 1) written[sector]?.push(write);
        } else if (kind === 'answer') {
          const [write] = writing.splice(at % Math.max(1, writing.length), 1);
          if (write === undefined) continue;
          model.endWrite(write);
          plain.endWrite(write);
        } else if (kind === 'read') {
          reading.push({ began: model.beginRead(), plainBegan: plain.tick() });
        } else {
          const [read] = reading.splice(at % Math.max(1, reading.length), 1);
          if (read === undefined) continue;
          // What a sector shows is one of its latest writes: sometimes right, sometimes not.
          const seen = Array.from({ length: sectors }, (_, index) => {
            const of = written[first + index] ?? [];
            return of[Math.max(0, of.length - 1 - ((back + index * at) % 7))] ?? 0;
          });
          const data = Buffer.concat(seen.map((write, index) => sectorOf(model, write, first + index)));
          const expected = plain.checkRead(read.plainBegan, first, seen);
          assert.equal(model.checkRead(read.began, first, data)?.sector ?? null, expected);
          verdicts[expected === null ? 'fine' : 'wrong'] += 1;
        }
      }
    }),
    { numRuns: 3000, seed: 20_261_122 },
  );
  assert.ok(verdicts.fine > 1000 && verdicts.wrong > 1000, JSON.stringify(verdicts));
});
