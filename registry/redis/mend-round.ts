/** Makes the names of a registry fit each other at the end of a late round (mend-names.ts): one look at all of them, changes as entries of the router's own log. */
import type { FileId } from '../../server/core/ids.ts';
import { laterThan, type Timestamp } from '../../server/core/time.ts';
import { decodeAfterImage, encodeAfterImage } from '../after-image.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { OutboxEntry } from '../ports.ts';
import { IN_ROUND } from './generation-record.ts';
import type { VerbScript } from './lua-pieces.ts';
import { type Linked, mendNames, type SequencedName } from './mend-names.ts';
import { unpackEntry, unpackInode } from './packed-inode.ts';
import { COUNTERS_SCRIPT, SCAN_SCRIPTS } from './read-scripts.ts';
import type { ScriptArgument, ScriptReply } from './redis-link.ts';
import { bytesAt, decimalAt, listAt } from './redis-verbs.ts';

export interface MendSource {
  /** Runs scripts in the round; replies in order. */
  readonly run: (script: VerbScript, args: readonly (readonly ScriptArgument[])[]) => Promise<ScriptReply[]>;
  /** Packed inodes, null: not there. */
  readonly inodes: (fileids: readonly FileId[]) => Promise<readonly (Buffer | null)[]>;
}

export interface Mender {
  /** The generation that the round came from. */
  readonly generation: number;
  readonly now: Timestamp;
  /** Directories whose names changed late: their times move on, else clients that know them would not look again. */
  readonly touched: ReadonlySet<FileId>;
}

export interface MendEntries {
  /** Last change before them: they are numbered from there on. */
  readonly after: number;
  readonly entries: readonly OutboxEntry[];
  readonly told: readonly string[];
}

/** Verb of such a change in logs and archive. */
const MEND_VERB = 'mend';
/** Of an entry: far below what an after-image may have, and inline files are 64 KiB at most. */
const RECORDS_PER_ENTRY = 100;

/** Adds the directories whose names an entry of the log changed. */
export function addTouched(touched: Set<FileId>, { afterImage, sequence }: OutboxEntry): void {
  const { entries, droppedEntries } = decodeAfterImage(afterImage, `outbox entry ${sequence}`);
  for (const { directory } of [...entries, ...droppedEntries]) touched.add(directory);
}

/** What has to be changed; nobody else may change names meanwhile. About 200 bytes of memory per inode and name. */
export async function mendEntries(source: MendSource, { generation, now, touched }: Mender): Promise<MendEntries> {
  const [counters] = await source.run(COUNTERS_SCRIPT, [[IN_ROUND]]);
  const after = decimalAt(counters ?? null, 1, 'Redis meta');
  const live = new Map<FileId, Linked>();
  await scan(source, SCAN_SCRIPTS.inodes, (field, value) => {
    const { inode, nextCookie } = unpackInode(value, `Redis inode ${field.toString()}`);
    const { fileid, nlink, parent } = inode;
    if (inode.state === 'live') live.set(fileid, { isDirectory: inode.type === 'directory', nlink, parent, nextCookie });
  });
  const names = new Map<string, SequencedName>();
  await scan(source, SCAN_SCRIPTS.names, (field, value) => names.set(field.toString('latin1'), unpackEntry(field, value, 'Redis names')));
  const mending = mendNames(live, [...names.values()]);

  const changed = new Map(mending.inodes);
  for (const directory of [...touched, ...[...mending.entries, ...mending.droppedEntries].map((entry) => entry.directory)]) {
    const inode = live.get(directory);
    if (inode?.isDirectory === true && !changed.has(directory)) changed.set(directory, inode);
  }

  const entries: OutboxEntry[] = [];
  const add = (image: Partial<Parameters<typeof encodeAfterImage>[0]>): void => {
    const afterImage = encodeAfterImage({ inodes: [], droppedInodes: [], entries: [], droppedEntries: [], owners: [], droppedOwners: [], ...image });
    entries.push({ generation, sequence: after + 1 + entries.length, operationId: null, verb: MEND_VERB, afterImage, outcome: null });
  };
  for (const part of chunksOf(mending.droppedEntries)) add({ droppedEntries: part });
  for (const part of chunksOf(mending.entries)) add({ entries: part });
  for (const part of chunksOf([...changed])) {
    const packed = await source.inodes(part.map(([fileid]) => fileid));
    const inodes = part.flatMap(([fileid, { nlink, parent, nextCookie }], index): InodeRecord[] => {
      const bytes = packed[index];
      if (bytes === null || bytes === undefined) return [];
      const { inode, unlinkedMs } = unpackInode(bytes, `Redis inode ${fileid}`);
      const mtime = inode.type === 'directory' ? laterThan(inode.mtime, now) : inode.mtime;
      return [{ inode: { ...inode, nlink, parent, mtime, ctime: laterThan(inode.ctime, now) }, nextCookie, unlinkedMs }];
    });
    add({ inodes });
  }
  return { after, entries, told: mending.told };
}

async function scan(source: MendSource, script: VerbScript, take: (field: Buffer, value: Buffer) => void): Promise<void> {
  const where = `Redis ${script.name}`;
  for (let cursor = '0'; ;) {
    const [reply = null] = await source.run(script, [[IN_ROUND, cursor]]);
    const page = listAt(reply, 1, where);
    for (let at = 0; at + 1 < page.length; at += 2) take(bytesAt(page, at, where), bytesAt(page, at + 1, where));
    cursor = bytesAt(reply, 0, where).toString();
    if (cursor === '0') return;
  }
}

function* chunksOf<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < all.length; at += RECORDS_PER_ENTRY) yield all.slice(at, at + RECORDS_PER_ENTRY);
}
