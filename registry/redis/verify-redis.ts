/**
 * Check of a vPool's records in Redis against each other, page by page: what is being changed meanwhile may be reported wrongly, so it is for a registry at
 * rest. Keeps about 200 bytes per inode and name in memory.
 */
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId } from '../../server/core/ids.ts';
import { decodeOutcome, encodeOutcome, isVerb } from '../outcome-codec.ts';
import { corrupt } from '../record-check.ts';
import type { VerbScript } from './lua-pieces.ts';
import { integer64, packedSequence, unpackEntry, unpackInode, unpackListed } from './packed-inode.ts';
import { unpackChanges, unpackOutcome } from './packed-outcome.ts';
import { unpackOwner } from './packed-owner.ts';
import { COUNTERS_SCRIPT, SCAN_SCRIPTS, SIZES_SCRIPT } from './read-scripts.ts';
import type { RedisMembership } from './redis-membership.ts';
import { ROOT_FILEID } from './redis-namespace.ts';
import { bytesAt, decimalAt, listAt, numberAt, type RedisVerbs } from './redis-verbs.ts';

interface Known {
  readonly type: 'file' | 'directory' | 'symlink';
  readonly class: string;
  readonly live: boolean;
  readonly nlink: number;
  readonly parent: FileId | null;
  readonly nextCookie: number | null;
  readonly uuid: string | null;
  names: number;
  subdirectories: number;
}

/** Messages of everything that is wrong; none when all is well. */
export async function* verifyRedis(verbs: RedisVerbs, membership: RedisMembership): AsyncGenerator<string> {
  const problems: string[] = [];
  const attempt = <T>(check: () => T): T | null => {
    try {
      return check();
    } catch (error) {
      if (!(error instanceof ApplianceError)) throw error;
      problems.push(error.message);
      return null;
    }
  };
  const scan = async (script: VerbScript, check: (field: Buffer, value: Buffer) => void): Promise<void> => {
    // A page may repeat what another had: SCAN promises no more.
    const seen = new Set<string>();
    for (let cursor = '0'; ;) {
      const reply = await verbs.read(script, [cursor]);
      const page = listAt(reply, 1, `Redis ${script.name}`);
      for (let at = 0; at + 1 < page.length; at += 2) {
        const field = bytesAt(page, at, `Redis ${script.name}`);
        const key = field.toString('latin1');
        if (!seen.has(key)) attempt(() => check(field, bytesAt(page, at + 1, `Redis ${script.name}`)));
        seen.add(key);
      }
      cursor = bytesAt(reply, 0, `Redis ${script.name}`).toString();
      if (cursor === '0') return;
    }
  };

  const counters = await verbs.read(COUNTERS_SCRIPT, []);
  const generation = decimalAt(counters, 0, 'Redis meta');
  const sequence = decimalAt(counters, 1, 'Redis meta');
  const sizes = await verbs.read(SIZES_SCRIPT, []);
  const nextFileid = decimalAt(sizes, 0, 'Redis meta');
  const inodes = new Map<FileId, Known>();
  let live = 0;
  let usedBytes = 0;
  const checkSequence = (packed: Buffer, what: string): void => {
    if (packedSequence(packed) > sequence) corrupt(what, `is of change ${packedSequence(packed)}, the last was ${sequence}`);
  };

  await scan(SCAN_SCRIPTS.inodes, (field, value) => {
    const { inode, nextCookie } = unpackInode(value, `Redis inode ${field.toString()}`);
    if (String(inode.fileid) !== field.toString()) corrupt(`Redis inode ${field.toString()}`, `the record is of ${inode.fileid}`);
    if (inode.fileid >= nextFileid) problems.push(`inode ${inode.fileid} is at or above the fileid counter ${nextFileid}`);
    checkSequence(value, `Redis inode ${inode.fileid}`);
    const { type, class: inodeClass, nlink, parent, uuid } = inode;
    inodes.set(inode.fileid, {
      type,
      class: inodeClass,
      live: inode.state === 'live',
      nlink,
      parent,
      nextCookie,
      uuid,
      names: 0,
      subdirectories: 0,
    });
    if (inode.state === 'live') {
      live += 1;
      usedBytes += inode.usedBytes;
    } else if (inodeClass !== 'file' && inodeClass !== 'volume') {
      problems.push(`tombstone ${inode.fileid} is of class ${inodeClass}, which has no data elsewhere`);
    }
  });
  const root = inodes.get(ROOT_FILEID);
  if (root === undefined || !root.live || root.type !== 'directory' || root.parent !== ROOT_FILEID) {
    problems.push(`the root directory ${ROOT_FILEID} is missing or its own parent no more`);
  }

  /** `directory/cookie` -> fileid and name, to be found in the listing. */
  const cookies = new Map<string, string>();
  await scan(SCAN_SCRIPTS.names, (field, value) => {
    const entry = unpackEntry(field, value, 'Redis names');
    const what = `entry ${JSON.stringify(Buffer.from(entry.name).toString('latin1'))} of directory ${entry.directory}`;
    checkSequence(value, what);
    const place = `${entry.directory}/${entry.cookie}`;
    if (cookies.has(place)) problems.push(`${what} has the cookie ${entry.cookie} of another`);
    cookies.set(place, `${entry.fileid} ${Buffer.from(entry.name).toString('latin1')}`);
    const directory = inodes.get(entry.directory);
    if (directory === undefined || !directory.live || directory.type !== 'directory') problems.push(`${what} is in what is not a live directory`);
    else if (entry.cookie >= (directory.nextCookie ?? 0))
      problems.push(`${what} has cookie ${entry.cookie}, the next is ${directory.nextCookie ?? 'none'}`);
    const inode = inodes.get(entry.fileid);
    if (inode === undefined || !inode.live) {
      problems.push(`${what} names inode ${entry.fileid}, which is not there or unlinked`);
      return;
    }
    inode.names += 1;
    if (inode.type !== 'directory') return;
    if (directory !== undefined) directory.subdirectories += 1;
    if (inode.parent !== entry.directory)
      problems.push(`directory ${entry.fileid} has parent ${inode.parent ?? 'none'} and its name in ${entry.directory}`);
  });
  await scan(SCAN_SCRIPTS.listing, (member) => {
    const { directory, cookie, fileid, name } = unpackListed(member, 'Redis listing');
    const place = `${directory}/${cookie}`;
    if (cookies.get(place) !== `${fileid} ${Buffer.from(name).toString('latin1')}`) {
      problems.push(`the listing of directory ${directory} has cookie ${cookie} for what is no entry`);
    } else cookies.delete(place);
  });
  for (const place of cookies.keys()) problems.push(`the entry with directory/cookie ${place} is not in the listing`);
  yield* problems.splice(0);

  for (const [fileid, inode] of inodes) {
    if (inode.type !== 'directory') {
      if (inode.nlink !== inode.names) problems.push(`inode ${fileid} has ${inode.nlink} links and ${inode.names} names`);
      continue;
    }
    if (inode.nlink !== 2 + inode.subdirectories)
      problems.push(`directory ${fileid} has ${inode.nlink} links and ${inode.subdirectories} subdirectories`);
    if (inode.names !== (fileid === ROOT_FILEID ? 0 : 1)) problems.push(`directory ${fileid} has ${inode.names} names`);
  }
  for (const fileid of unreachable(inodes)) problems.push(`directory ${fileid} is not reachable from the root`);
  yield* problems.splice(0);

  const routers = new Set((await membership.routers()).map((router) => String(router.id)));
  const owned = new Map<FileId, string>();
  await scan(SCAN_SCRIPTS.owners, (field, value) => {
    const { owner } = unpackOwner(value, `Redis owner ${field.toString()}`);
    if (String(owner.fileid) !== field.toString()) corrupt(`Redis owner ${field.toString()}`, `the record is of ${owner.fileid}`);
    checkSequence(value, `Redis owner ${owner.fileid}`);
    owned.set(owner.fileid, owner.router);
    const inode = inodes.get(owner.fileid);
    if (inode === undefined || (inode.class !== 'file' && inode.class !== 'volume') || inode.uuid !== owner.uuid) {
      problems.push(`owner record ${owner.fileid} has no file or volume with its number and uuid`);
    }
    if (!routers.has(owner.router)) problems.push(`owner record ${owner.fileid} names router ${owner.router}, which never joined`);
    if (owner.term.generation > generation) {
      problems.push(`owner record ${owner.fileid} has a term of generation ${owner.term.generation}, the registry is at ${generation}`);
    }
  });
  await scan(SCAN_SCRIPTS.owned, (member) => {
    const fileid = (member.readUInt32BE(32) * 2 ** 32 + member.readUInt32BE(36)) as FileId;
    if (owned.get(fileid) !== member.toString('latin1', 0, 32)) problems.push(`the index of owners has ${fileid} for a router that does not own it`);
    else owned.delete(fileid);
  });
  for (const fileid of owned.keys()) problems.push(`owner record ${fileid} is not in the index of owners`);

  const tombstones = new Set([...inodes].filter(([, inode]) => !inode.live).map(([fileid]) => String(fileid)));
  await scan(SCAN_SCRIPTS.tombstones, (member) => {
    if (!tombstones.delete(member.toString())) problems.push(`${member.toString()} is listed as a tombstone and is none`);
  });
  for (const fileid of tombstones) problems.push(`tombstone ${fileid} is not listed`);

  if (decimalAt(counters, 2, 'Redis meta') !== live || decimalAt(counters, 3, 'Redis meta') !== usedBytes) {
    problems.push(
      `usage says ${bytesAt(counters, 2, 'Redis meta').toString()} inodes and ${bytesAt(counters, 3, 'Redis meta').toString()} bytes, there are ${live} and ${usedBytes}`,
    );
  }
  const operations = numberAt(sizes, 1, 'Redis sizes');
  if (numberAt(sizes, 2, 'Redis sizes') !== operations || numberAt(sizes, 3, 'Redis sizes') !== operations) {
    problems.push(`there are ${operations} remembered operations, their indexes have others`);
  }
  let operationBytes = 0;
  await scan(SCAN_SCRIPTS.operations, (field, value) => {
    operationBytes += field.byteLength + value.byteLength;
    checkOperation(field.toString(), value);
  });
  const bytesSaid = decimalAt(sizes, 4, 'Redis meta');
  if (bytesSaid !== operationBytes) problems.push(`the counter says ${bytesSaid} bytes of remembered operations, there are ${operationBytes}`);
  yield* problems;
}

const REMEMBERED_HEAD_BYTES = 36;

function checkOperation(field: string, value: Buffer): void {
  const where = `Redis operation ${JSON.stringify(field)}`;
  const verb = field.split(' ', 1)[0] ?? '';
  if (!isVerb(verb)) return corrupt(where, `unknown verb ${verb}`);
  if (value.byteLength < REMEMBERED_HEAD_BYTES) return corrupt(where, `a record of ${value.byteLength} bytes`);
  if (!Number.isSafeInteger(integer64(value, 0)) || !Number.isSafeInteger(integer64(value, 16))) return corrupt(where, 'a number is out of bounds');
  const changesAt = REMEMBERED_HEAD_BYTES + value.readUInt32LE(32);
  const changes = value.subarray(changesAt);
  unpackChanges(changes, where);
  const outcome = unpackOutcome(verb, value.subarray(REMEMBERED_HEAD_BYTES, changesAt), changes, where);
  decodeOutcome(verb, encodeOutcome(verb, outcome), where);
}

/** Live directories from which no chain of parents leads to the root. */
function unreachable(inodes: ReadonlyMap<FileId, Known>): FileId[] {
  const reached = new Set<FileId>([ROOT_FILEID]);
  const lost: FileId[] = [];
  for (const [fileid, inode] of inodes) {
    if (inode.type !== 'directory' || !inode.live) continue;
    const path: FileId[] = [];
    const onPath = new Set<FileId>();
    let current: FileId | null = fileid;
    while (current !== null && !reached.has(current) && !onPath.has(current)) {
      path.push(current);
      onPath.add(current);
      current = inodes.get(current)?.parent ?? null;
    }
    if (current !== null && reached.has(current)) for (const step of path) reached.add(step);
    else lost.push(fileid);
  }
  return lost;
}
