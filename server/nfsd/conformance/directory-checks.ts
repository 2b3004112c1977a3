/** esxi.md 10, checks 23 and 24; nfs-servers.md 4.3, line 15. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Handle } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { fill } from './contents.ts';
import { failed, GUARDED, listAll, made, namesOf, newFile, succeeded } from './server-under-test.ts';
import type { SuiteOf } from './server-under-test.ts';

/** Size of READDIR3resok or READDIRPLUS3resok as the reply had it, RFC 1813 §3.3.16, §3.3.17. */
function resokBytes(
  page: { attributes: unknown; entries: readonly { name: Buffer; attributes: unknown; handle: Uint8Array | null }[] },
  plus: boolean,
): number {
  let bytes = (page.attributes === null ? 4 : 88) + 8 + 8;
  for (const entry of page.entries) {
    bytes += 4 + 8 + 4 + Math.ceil(entry.name.length / 4) * 4 + 8;
    if (plus) bytes += (entry.attributes === null ? 4 : 88) + (entry.handle === null ? 4 : 8 + Math.ceil(entry.handle.length / 4) * 4);
  }
  return bytes;
}

export function directoryChecks(suite: SuiteOf): void {
  test('esxi 23: a walk of a big directory gives each name once, with any page size, and goes on after the end without an error (4.3/15)', async () => {
    const { client, options } = suite();
    const directory = await suite().directory();
    await fill(suite(), directory, options.directoryEntries, 'vm-');
    for (const [maxCountBytes, plus] of [
      [65_536, true],
      [4096, true],
      [32_768, false],
      [0xffff_ffff, true],
    ] as const) {
      const entries = await listAll(client, directory, maxCountBytes, plus);
      assert.equal(entries.length, options.directoryEntries + 2);
      assert.equal(new Set(namesOf(entries)).size, options.directoryEntries);
      assert.equal(new Set(entries.map((entry) => entry.cookie)).size, entries.length, 'cookies are unique');
      assert.ok(entries.every((entry) => entry.cookie !== 0n && entry.fileid !== 0));
      if (plus) {
        const withAttributes = entries.filter((entry) => entry.attributes !== null);
        for (const entry of withAttributes) assert.equal(entry.attributes!.fileid, entry.fileid);
      }
      const last = entries.at(-1)!.cookie;
      const beyond = succeeded(await client.readdirplus(directory, last, Buffer.alloc(8, 0)));
      assert.deepEqual([beyond.entries.length, beyond.eof], [0, true]);
    }
    for (const cookie of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      const beyond = succeeded(await client.readdir(directory, cookie));
      assert.deepEqual([beyond.entries.length, beyond.eof], [0, true], 'cookies above 2^53 are no error');
    }
  });

  test('esxi 24: names that nobody touches are neither skipped nor repeated while others come and go', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    await fill(suite(), directory, 200, 'stay-');
    await fill(suite(), directory, 200, 'go-');
    const seen: string[] = [];
    let cookie = 0n;
    for (let page = 0; ; page++) {
      const result = succeeded(await client.readdirplus(directory, cookie, Buffer.alloc(8), 2048, 2048));
      seen.push(...namesOf(result.entries));
      if (result.eof) break;
      cookie = result.entries.at(-1)!.cookie;
      // The entry that the cookie belongs to goes, too.
      const lastName = result.entries.at(-1)!.name.toString();
      if (lastName.startsWith('go-')) succeeded(await client.remove(directory, lastName));
      for (let i = page * 3; i < page * 3 + 3; i++) await client.remove(directory, `go-${i}`);
      made(await client.create(directory, `come-${page}`, GUARDED));
    }
    const stayed = seen.filter((name) => name.startsWith('stay-'));
    assert.equal(stayed.length, 200);
    assert.equal(new Set(seen).size, seen.length, 'no name twice');
  });

  test('esxi 24: . is the directory and .. its parent, the root its own parent, by fileid and handle', async () => {
    const { client, root } = suite();
    const directory = await suite().directory();
    const sub = made(await client.mkdir(directory, 'sub'));
    const fileidOf = async (handle: Handle): Promise<number> => succeeded(await client.getattr(handle)).attributes.fileid;
    for (const [handle, parent] of [
      [root, root],
      [directory, root],
      [sub.handle, directory],
    ] as const) {
      for (const plus of [false, true]) {
        const page = succeeded(plus ? await client.readdirplus(handle) : await client.readdir(handle));
        const [dot, dotDot] = page.entries;
        assert.deepEqual([dot?.name.toString(), dot?.fileid], ['.', await fileidOf(handle)]);
        assert.deepEqual([dotDot?.name.toString(), dotDot?.fileid], ['..', await fileidOf(parent)]);
        if (plus) {
          assert.deepEqual(dot?.handle ?? handle, handle);
          assert.deepEqual(dotDot?.handle ?? parent, parent);
        }
      }
    }
  });

  test('4.3/15: pages keep count, maxcount and dircount, make good use of them, and TOOSMALL comes when nothing fits', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    for (let i = 0; i < 60; i++) made(await client.create(directory, 'n'.repeat(1 + ((i * 37) % 240)) + String(i), GUARDED));
    for (const bytes of [512, 600, 1000, 1024, 2048, 4096, 8192, 65_536]) {
      const plain = succeeded(await client.readdir(directory, 0, Buffer.alloc(8), bytes));
      assert.ok(resokBytes(plain, false) <= bytes, `READDIR ${bytes}`);
      if (!plain.eof) assert.ok(resokBytes(plain, false) > bytes - 280, 'the next entry did not fit');
      const page = succeeded(await client.readdirplus(directory, 0, Buffer.alloc(8), bytes, bytes));
      assert.ok(resokBytes(page, true) <= bytes, `READDIRPLUS ${bytes}`);
      const few = succeeded(await client.readdirplus(directory, 0, Buffer.alloc(8), 256, bytes));
      const information = few.entries.reduce((sum, entry) => sum + 20 + Math.ceil(entry.name.length / 4) * 4, 0);
      assert.ok(few.entries.length === 1 || information <= 256, `dircount 256: ${information}`);
    }
    const one = succeeded(await client.readdirplus(directory, 0, Buffer.alloc(8), 0, 4096));
    assert.equal(one.entries.length, 1, 'dircount is no reason for a page without entries');
    const last = (await listAll(client, directory, 4096)).at(-1)!.cookie;
    failed(await client.readdir(directory, last, Buffer.alloc(8), 50), Status.TOOSMALL);
    for (const bytes of [0, 1, 16, 100, 104, 120, 131]) {
      failed(await client.readdir(directory, 0, Buffer.alloc(8), bytes), Status.TOOSMALL);
      failed(await client.readdirplus(directory, 0, Buffer.alloc(8), bytes, bytes), Status.TOOSMALL);
    }
    const complete = await listAll(client, directory, 512 + 100, false);
    assert.equal(namesOf(complete).length, 60);
  });

  test('4.3/15: READDIR of a file is NOTDIR; hard links have entries of their own', async () => {
    const { client } = suite();
    const directory = await suite().directory();
    const { handle, fileid } = await newFile(suite(), directory, 'a');
    failed(await client.readdir(handle), Status.NOTDIR);
    failed(await client.readdirplus(handle), Status.NOTDIR);
    assert.equal((await client.link(handle, directory, 'b')).status, Status.OK);
    const entries = (await listAll(client, directory, 4096)).filter((entry) => entry.fileid === fileid);
    assert.deepEqual(namesOf(entries).sort(), ['a', 'b']);
    assert.notEqual(entries[0]!.cookie, entries[1]!.cookie);
  });
}
