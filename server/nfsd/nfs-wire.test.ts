import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { XdrError } from '../oncrpc/xdr-error.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import { encodeArgs } from './fake-call.ts';
import type { Attributes, CreateHow, FileType, SetAttributes } from './file-system.ts';
import {
  decodeAttributes,
  decodeSetAttributes,
  decodeUint64Clamped,
  decodeUint64Nearest,
  decodeWcc,
  encodeAttributes,
  encodeSetAttributes,
  encodeUint64,
  encodeWcc,
  FATTR3_BYTES,
  WCC_DATA_BYTES_MAX,
} from './nfs-wire.ts';
import { decodeCreateHow, encodeCreateHow } from './procedures/create.ts';
import { decodeSetattrArgs, encodeSetattrArgs } from './procedures/setattr.ts';

/** Plain objects: strict equality looks at prototypes. */
function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true });
}

const uint32 = fc.nat({ max: 0xffff_ffff });
const uint53 = fc.maxSafeNat();
const time = record({ seconds: uint32, nanoseconds: fc.nat({ max: 999_999_999 }) });
const attributes: fc.Arbitrary<Attributes> = record({
  type: fc.integer({ min: 1, max: 7 }) as fc.Arbitrary<FileType>,
  mode: uint32,
  nlink: uint32,
  uid: uint32,
  gid: uint32,
  sizeBytes: uint53,
  usedBytes: uint53,
  fsid: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fileid: uint53,
  atime: time,
  mtime: time,
  ctime: time,
});
const setTime = fc.oneof(fc.constant(null), fc.constant('server' as const), time);
const setAttributes: fc.Arbitrary<SetAttributes> = record({
  mode: fc.option(fc.nat({ max: 0o7777 })),
  uid: fc.option(uint32),
  gid: fc.option(uint32),
  sizeBytes: fc.option(uint53),
  atime: setTime,
  mtime: setTime,
});

/** Encodes, decodes everything, and gives what came out. */
function roundTrip<T>(value: T, encode: (writer: XdrWriter, value: T) => void, decode: (reader: XdrReader) => T): { decoded: T; bytes: number } {
  const encoded = encodeArgs((writer) => encode(writer, value));
  const reader = new XdrReader([encoded]);
  const decoded = decode(reader);
  reader.assertEnd();
  return { decoded, bytes: encoded.length };
}

test('fattr3 comes back as it was, in 84 bytes', () => {
  fc.assert(
    fc.property(attributes, (value) => {
      assert.deepEqual(roundTrip(value, encodeAttributes, decodeAttributes), { decoded: value, bytes: FATTR3_BYTES });
    }),
  );
});

test('wcc_data comes back as it was, and fits the room that is asked for it', () => {
  const before = fc.option(record({ sizeBytes: uint53, mtime: time, ctime: time }));
  fc.assert(
    fc.property(record({ before, after: fc.option(attributes) }), (wcc) => {
      const { decoded, bytes } = roundTrip(wcc, encodeWcc, decodeWcc);
      assert.deepEqual(decoded, wcc);
      assert.ok(bytes <= WCC_DATA_BYTES_MAX);
    }),
  );
});

test('sattr3, createhow3 and SETATTR3args come back as they were', () => {
  const how: fc.Arbitrary<CreateHow> = fc.oneof(
    record({ mode: fc.constantFrom('unchecked' as const, 'guarded' as const), attributes: setAttributes }),
    record({ mode: fc.constant('exclusive' as const), verifier: fc.uint8Array({ minLength: 8, maxLength: 8 }) }),
  );
  fc.assert(
    fc.property(setAttributes, how, fc.option(time), (changes, createHow, guardCtime) => {
      const { decoded } = roundTrip(changes, encodeSetAttributes, decodeSetAttributes);
      assert.deepEqual(decoded, changes);
      const made = roundTrip(createHow, encodeCreateHow, decodeCreateHow).decoded;
      assert.deepEqual(made.mode === 'exclusive' ? { ...made, verifier: new Uint8Array(made.verifier) } : made, createHow);
      const args = { object: Buffer.from('handle'), changes, guardCtime };
      assert.deepEqual(roundTrip(args, encodeSetattrArgs, decodeSetattrArgs).decoded, args);
    }),
  );
});

test('64-bit numbers above 2^53-1 stay above it, or become it', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (value) => {
      const nearest = roundTrip(value as number | bigint, encodeUint64, decodeUint64Nearest).decoded as number;
      const clamped = roundTrip(value as number | bigint, encodeUint64, decodeUint64Clamped).decoded as number;
      if (value <= BigInt(Number.MAX_SAFE_INTEGER)) assert.deepEqual([nearest, clamped], [Number(value), Number(value)]);
      else assert.ok(nearest > Number.MAX_SAFE_INTEGER && clamped === Number.MAX_SAFE_INTEGER);
    }),
  );
  for (const value of [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 32n - 1n, 2n ** 32n]) {
    const { decoded } = roundTrip(value as number | bigint, encodeUint64, decodeUint64Nearest);
    assert.equal((decoded as number) > Number.MAX_SAFE_INTEGER, value > 2n ** 53n - 1n);
  }
});

test('a mode is cut to its permission bits; discriminants that the type does not have are refused', () => {
  const withMode = encodeArgs((w) => encodeSetAttributes(w, { mode: 0o100_644, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null }));
  assert.equal(decodeSetAttributes(new XdrReader([withMode])).mode, 0o644);
  const badType = Buffer.alloc(FATTR3_BYTES);
  assert.throws(() => decodeAttributes(new XdrReader([badType])), XdrError);
  const badHow = Buffer.from('00000003', 'hex');
  assert.throws(() => decodeCreateHow(new XdrReader([badHow])), XdrError);
});
