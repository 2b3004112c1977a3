import assert from 'node:assert/strict';
import { test } from 'node:test';

import { errorCode } from '../../core/errors.ts';
import type { FileId, ObjectUuid, RouterId, Term } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Random } from '../../core/time.ts';
import { FaultyDisk } from '../../object-log/testing/faulty-disk.ts';
import { CEDED_RECORD_BYTES, CededJournal, decodeCeded, encodeCeded } from './ceded-journal.ts';
import type { CededEntry, CededState } from './ceded-journal.ts';

const PATH = '/vpool/ceded.log';

function seeded(): Random {
  let state = 7;
  const next = (): number => (state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff);
  return { bytes: (count) => Buffer.from(Array.from({ length: count }, () => (next() >> 16) & 0xff)), fraction: () => next() / 0x8000_0000 };
}

function term(counter: number, generation = 1): Term {
  return { generation, counter, nonce: counter.toString(16).padStart(16, '0') };
}

function entry(fileid: number, counter: number, state: CededState = 'ceding'): CededEntry {
  return {
    fileid: fileid as FileId,
    uuid: fileid.toString(16).padStart(32, '0') as ObjectUuid,
    from: term(counter - 1),
    to: term(counter),
    router: 'b'.repeat(32) as RouterId,
    state,
    atMs: 1_700_000_000_000.25,
  };
}

async function diskWith(): Promise<FaultyDisk> {
  const disk = new FaultyDisk(seeded());
  await disk.process().makeDirectory('/vpool');
  return disk;
}

test('a record is 128 bytes that say everything, and other bytes are none', () => {
  const one = entry(2 ** 52 + 1, 77, 'moved');
  const bytes = encodeCeded(one);
  assert.equal(bytes.length, CEDED_RECORD_BYTES);
  assert.deepEqual(decodeCeded(bytes), one);
  for (let at = 0; at < bytes.length; at += 1) {
    const damaged = Buffer.from(bytes);
    damaged[at] = (damaged[at] as number) ^ 1;
    assert.equal(decodeCeded(damaged), null, `byte ${at}`);
  }
  assert.equal(decodeCeded(Buffer.alloc(CEDED_RECORD_BYTES)), null);
});

test('what was written is there after a power cut, the newest of each object', async () => {
  const disk = await diskWith();
  const journal = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  assert.equal(journal.cededCounter(100 as FileId), 0);
  await Promise.all([journal.write(entry(100, 5)), journal.write(entry(101, 9)), journal.write(entry(100, 7, 'moved'))]);
  disk.powerCut();
  const again = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  assert.equal(again.cededCounter(100 as FileId), 7);
  assert.equal(again.cededCounter(101 as FileId), 9);
  assert.deepEqual(again.entry(100 as FileId), entry(100, 7, 'moved'));
});

test('a file that is full is replaced by one with the newest of each object', async () => {
  const disk = await diskWith();
  const journal = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  for (let counter = 1; counter <= 2100; counter += 1) await journal.write(entry(100 + (counter % 3), counter));
  assert.equal(disk.readNow(PATH, 0, CEDED_RECORD_BYTES * 2048).length, CEDED_RECORD_BYTES * 2048);
  disk.powerCut();
  const again = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  assert.equal(again.size, 3);
  assert.deepEqual(
    [100, 101, 102].map((fileid) => again.cededCounter(fileid as FileId)).sort((a, b) => a - b),
    [2098, 2099, 2100],
  );
});

test('a torn last record is nothing; damage before a valid one is reported', async () => {
  const disk = await diskWith();
  const written = async (): Promise<void> => {
    const journal = await CededJournal.open(disk.process(), '/vpool', silentLogger);
    await journal.write(entry(100, 5));
    await journal.write(entry(101, 6));
    await journal.close();
  };
  const flip = (at: number): void =>
    disk.damage(PATH, (bytes) => {
      bytes[at] = (bytes[at] as number) ^ 0xff;
      return bytes;
    });
  await written();
  flip(CEDED_RECORD_BYTES + 40);
  const torn = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  assert.equal(torn.cededCounter(100 as FileId), 5);
  assert.equal(torn.cededCounter(101 as FileId), 0);
  await torn.close();
  await written();
  flip(40);
  await assert.rejects(CededJournal.open(disk.process(), '/vpool', silentLogger), { code: 'ceded-damaged' });
});

test('after a failed sync the next record goes into a new file, and nothing that counted is lost', async () => {
  const disk = await diskWith();
  const journal = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  await journal.write(entry(100, 5));
  disk.setFaults({ syncError: 1 });
  await assert.rejects(journal.write(entry(100, 6)));
  assert.equal(journal.cededCounter(100 as FileId), 5);
  disk.setFaults({});
  await journal.write(entry(101, 9));
  disk.powerCut();
  const again = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  assert.equal(again.cededCounter(100 as FileId), 5);
  assert.equal(again.cededCounter(101 as FileId), 9);
});

test('a claim over a record from before a move away is refused, whatever the registry says', async () => {
  const disk = await diskWith();
  const journal = await CededJournal.open(disk.process(), '/vpool', silentLogger);
  const claims = (expected: Term | null): string | undefined => {
    try {
      journal.checkClaim(100 as FileId, expected);
      return 'claimed';
    } catch (error) {
      return errorCode(error);
    }
  };
  assert.equal(claims(null), 'claimed');
  // Not known whether it moved: the registry decides, by compare-and-set.
  await journal.write(entry(100, 5));
  assert.equal(claims(term(4)), 'claimed');
  await journal.write(entry(100, 5, 'moved'));
  assert.equal(claims(term(4)), 'object-recovering');
  assert.equal(claims(null), 'object-recovering');
  assert.equal(claims(term(5)), 'claimed');
  assert.equal(claims(term(1, 2)), 'claimed');
  await journal.write(entry(100, 5, 'kept'));
  assert.equal(claims(term(4)), 'claimed');
});
