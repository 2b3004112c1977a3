/** A namespace rebuilt from nothing but after-images, and its comparison with a registry (invariant 7). */
import assert from 'node:assert/strict';

import type { FileId } from '../../server/core/ids.ts';
import { decodeAfterImage, type NamedRecord } from '../after-image.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { OwnerEntry } from '../owner-record.ts';
import type { OutboxEntry } from '../ports.ts';
import { OTHER_ROUTER, ROUTER, textOf, type World } from './world.ts';

export class Replay {
  readonly inodes = new Map<FileId, InodeRecord>();
  /** By `directory/name`. */
  readonly entries = new Map<string, NamedRecord>();
  readonly owners = new Map<FileId, OwnerEntry>();
  #sequence = 0;

  /** Applies one entry; the next in sequence. */
  apply(entry: OutboxEntry): void {
    assert.equal(entry.sequence, this.#sequence + 1, 'no gap in the sequence');
    this.#sequence = entry.sequence;
    this.applyImage(entry);
  }

  /** Applies the records only: harmless when repeated. */
  applyImage(entry: OutboxEntry): void {
    const image = decodeAfterImage(entry.afterImage, `outbox ${entry.sequence}`);
    for (const record of image.inodes) this.inodes.set(record.inode.fileid, record);
    for (const fileid of image.droppedInodes) this.inodes.delete(fileid);
    for (const dropped of image.droppedEntries) this.entries.delete(`${dropped.directory}/${textOf(dropped.name)}`);
    for (const put of image.entries) this.entries.set(`${put.directory}/${textOf(put.name)}`, put);
    for (const owner of image.owners) this.owners.set(owner.owner.fileid, owner);
    for (const fileid of image.droppedOwners) this.owners.delete(fileid);
  }

  /** The rebuilt namespace and owner records are those of the registry. */
  async assertEqual(world: World): Promise<void> {
    const seen = new Set<FileId>([world.root]);
    let names = 0;
    const directories = [world.root];
    for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
      assertSameInode(this.inodes.get(directory)?.inode, await world.live(directory));
      for (const { name, cookie, inode } of await world.list(directory)) {
        names += 1;
        assert.deepEqual(this.entries.get(`${directory}/${textOf(name)}`), { directory, name, cookie, fileid: inode.fileid });
        assertSameInode(this.inodes.get(inode.fileid)?.inode, inode);
        seen.add(inode.fileid);
        if (inode.type === 'directory') directories.push(inode.fileid);
      }
    }
    assert.equal(this.entries.size, names, 'no name but those of the registry');
    for (const { inode, sinceMs } of await world.namespace.tombstones(0 as FileId, 100_000)) {
      assertSameInode(this.inodes.get(inode.fileid)?.inode, inode);
      assert.equal(this.inodes.get(inode.fileid)?.unlinkedMs, sinceMs);
      seen.add(inode.fileid);
    }
    assert.deepEqual(new Set(this.inodes.keys()), seen, 'no inode but those of the registry');
    const owners = [];
    for (const router of [ROUTER, OTHER_ROUTER]) owners.push(...(await world.ownership.ownedBy(router, 0 as FileId, 100_000)));
    owners.sort((a, b) => a.fileid - b.fileid);
    assert.deepEqual(
      [...this.owners.values()].map((entry) => entry.owner).sort((a, b) => a.fileid - b.fileid),
      owners,
    );
  }
}

/** Equal but for the owner's lazy copy, which the outbox leaves out. */
function assertSameInode(replayed: Inode | undefined, inode: Inode): void {
  assert.ok(replayed !== undefined, `inode ${inode.fileid} is in the replay`);
  const comparable = (value: Inode): Partial<Inode> => {
    if (value.class !== 'file' && value.class !== 'volume') return value;
    const { sizeBytes: _size, usedBytes: _used, atime: _atime, mtime: _mtime, ctime: _ctime, ...rest } = value;
    return rest;
  };
  assert.deepEqual(comparable(replayed), comparable(inode));
}
