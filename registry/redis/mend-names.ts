/**
 * Two histories of one namespace put together. What a router brings back in a late round (recovery-round.ts) it did without knowing what others did since: each record is right by itself, the
 * newer one, but counts of links, cookies and names may not fit each other. Here is what has to be changed so that they do. Nothing that lives loses its last name.
 */
import { Buffer } from 'node:buffer';

import type { FileId } from '../../server/core/ids.ts';
import type { NamedRecord } from '../after-image.ts';
import { ROOT_FILEID } from './redis-namespace.ts';

/** Of a live inode, what names have to do with. Directories: `parent`, `nextCookie`; others: null. */
export interface Linked {
  readonly isDirectory: boolean;
  readonly nlink: number;
  readonly parent: FileId | null;
  readonly nextCookie: number | null;
}

export type SequencedName = NamedRecord & { readonly sequence: number };

export interface Mending {
  /** Live inodes as they have to be. */
  readonly inodes: ReadonlyMap<FileId, Linked>;
  readonly entries: readonly NamedRecord[];
  readonly droppedEntries: readonly Pick<NamedRecord, 'directory' | 'name'>[];
  /** What somebody should know of: names that went, and names that were made. */
  readonly told: readonly string[];
}

/** Cookies of a directory's names begin here (0 to 2: what READDIR itself uses). */
const COOKIE_MIN = 3;

/** @param live All live inodes, the root among them. @param names All names. */
export function mendNames(live: ReadonlyMap<FileId, Linked>, names: readonly SequencedName[]): Mending {
  const told: string[] = [];
  const droppedEntries: SequencedName[] = [];
  const drop = (entry: SequencedName, why: string): void => {
    droppedEntries.push(entry);
    told.push(`${JSON.stringify(textOf(entry.name))} of directory ${entry.directory} went: ${why}`);
  };
  const isLiveDirectory = (fileid: FileId): boolean => live.get(fileid)?.isDirectory === true;
  const kept: SequencedName[] = [];
  /** The one name of each directory. */
  const named = new Map<FileId, SequencedName>();
  for (const entry of names) {
    if (!live.has(entry.fileid)) drop(entry, `inode ${entry.fileid} was removed`);
    else if (!isLiveDirectory(entry.directory)) drop(entry, 'the directory was removed');
    else if (entry.fileid === ROOT_FILEID) drop(entry, 'it was of the root');
    else if (!isLiveDirectory(entry.fileid)) kept.push(entry);
    else {
      const other = named.get(entry.fileid);
      const wins = other === undefined || isBetter(entry, other, live.get(entry.fileid)?.parent ?? null);
      if (wins) named.set(entry.fileid, entry);
      if (other !== undefined) drop(wins ? other : entry, `directory ${entry.fileid} was renamed twice`);
    }
  }
  for (const fileid of inCircles(live, named)) {
    drop(named.get(fileid) as SequencedName, 'directories were moved into each other');
    named.delete(fileid);
  }
  kept.push(...named.values());

  const byDirectory = Map.groupBy(kept, ({ directory }) => directory);
  const names_ = new Map<FileId, number>();
  for (const { fileid } of kept) names_.set(fileid, (names_.get(fileid) ?? 0) + 1);
  const nameless = [...live.keys()].filter((fileid) => fileid !== ROOT_FILEID && !names_.has(fileid));
  const entries: NamedRecord[] = [];
  const nextCookies = new Map<FileId, number>();
  const parents = new Map<FileId, FileId>([[ROOT_FILEID, ROOT_FILEID]]);
  const subdirectories = new Map<FileId, number>();
  const count = ({ fileid, directory }: NamedRecord): void => {
    if (!isLiveDirectory(fileid)) return;
    parents.set(fileid, directory);
    subdirectories.set(directory, (subdirectories.get(directory) ?? 0) + 1);
  };
  for (const [directory, inode] of live) {
    if (!inode.isDirectory) continue;
    const its = (byDirectory.get(directory) ?? []).toSorted((one, other) => one.cookie - other.cookie || one.sequence - other.sequence);
    let next = Math.max(inode.nextCookie ?? 0, (its.at(-1)?.cookie ?? 0) + 1, COOKIE_MIN);
    for (const [index, entry] of its.entries()) {
      count(entry);
      if (entry.cookie !== its[index - 1]?.cookie) continue;
      const { sequence: _, ...record } = entry;
      entries.push({ ...record, cookie: next });
      next += 1;
    }
    if (directory === ROOT_FILEID) {
      const taken = new Set(its.map(({ name }) => textOf(name)));
      for (const fileid of nameless) {
        let name = `recovered-${fileid}`;
        while (taken.has(name)) name += '-again';
        const entry = { directory, name: Buffer.from(name), cookie: next, fileid };
        next += 1;
        entries.push(entry);
        names_.set(fileid, 1);
        count(entry);
        told.push(`inode ${fileid} had lost its name to a removal elsewhere: it is ${JSON.stringify(name)} in the root now`);
      }
    }
    nextCookies.set(directory, next);
  }

  const inodes = new Map<FileId, Linked>();
  for (const [fileid, inode] of live) {
    const { isDirectory } = inode;
    const nlink = isDirectory ? 2 + (subdirectories.get(fileid) ?? 0) : (names_.get(fileid) ?? 0);
    const parent = isDirectory ? (parents.get(fileid) ?? null) : inode.parent;
    const nextCookie = isDirectory ? (nextCookies.get(fileid) ?? null) : inode.nextCookie;
    if (nlink !== inode.nlink || parent !== inode.parent || nextCookie !== inode.nextCookie)
      inodes.set(fileid, { isDirectory, nlink, parent, nextCookie });
  }
  return { inodes, entries, droppedEntries: droppedEntries.map(({ directory, name }) => ({ directory, name })), told };
}

/** Of two names of a directory: the one where it says that it is, else the newer one. */
function isBetter(one: SequencedName, other: SequencedName, parent: FileId | null): boolean {
  if (one.directory === parent && other.directory !== parent) return true;
  if (other.directory === parent && one.directory !== parent) return false;
  return one.sequence > other.sequence;
}

/** Of each circle of directories that are in each other, one. */
function inCircles(live: ReadonlyMap<FileId, Linked>, named: ReadonlyMap<FileId, SequencedName>): FileId[] {
  const done = new Set<FileId>([ROOT_FILEID]);
  const found: FileId[] = [];
  for (const [fileid, { isDirectory }] of live) {
    if (!isDirectory) continue;
    const path = new Set<FileId>();
    let current: FileId | undefined = fileid;
    while (current !== undefined && !done.has(current) && !path.has(current)) {
      path.add(current);
      current = named.get(current)?.directory;
    }
    if (current !== undefined && path.has(current)) found.push(current);
    for (const step of path) done.add(step);
  }
  return found;
}

function textOf(name: Uint8Array): string {
  return Buffer.from(name).toString('latin1');
}
