/** Outcomes and after-images as the scripts answer and remember them: lists of packed records, each behind its length. */
import type { FileId } from '../../server/core/ids.ts';
import { type AfterImage, type NamedRecord } from '../after-image.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import { OUTCOME_SHAPES, type OutcomeField, type Outcomes, type Verb } from '../outcome-codec.ts';
import type { OwnerEntry } from '../owner-record.ts';
import { corrupt } from '../record-check.ts';
import { inodeOf, packFileid, packInode, packPutName, unpackFileid, unpackInode, unpackPutName } from './packed-inode.ts';
import { copyOf } from './packed-inode.ts';
import { packOwner, unpackOwner } from './packed-owner.ts';

/** A length with this bit is the number of a change, whose record the part is. */
const REFERENCE = 0x8000_0000;

/** A change of one record: kind and packed record. Kinds: I inode, E name, O owner record; i, e, o: dropped. */
interface Change {
  readonly kind: string;
  readonly packed: Buffer;
}

function changesOf(bytes: Buffer, where: string): Change[] {
  const changes: Change[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const length = at + 4 <= bytes.byteLength ? bytes.readUInt32LE(at) : 0;
    if (length === 0 || at + 4 + length > bytes.byteLength) return corrupt(where, 'changes of the wrong form');
    changes.push({ kind: bytes.toString('latin1', at + 4, at + 5), packed: bytes.subarray(at + 5, at + 4 + length) });
    at += 4 + length;
  }
  return changes;
}

/** The after-image of the changes that a script answered. @throws ApplianceError `registry-corrupt`. */
export function unpackChanges(bytes: Buffer, where: string): AfterImage {
  const inodes = new Map<FileId, InodeRecord | null>();
  const owners = new Map<FileId, OwnerEntry | null>();
  const entries: NamedRecord[] = [];
  const droppedEntries: { directory: FileId; name: Uint8Array }[] = [];
  for (const { kind, packed } of changesOf(bytes, where)) {
    switch (kind) {
      case 'I': {
        const record = unpackInode(packed, where);
        inodes.set(record.inode.fileid, record);
        break;
      }
      case 'i':
        inodes.set(unpackFileid(packed, where), null);
        break;
      case 'E':
        entries.push(unpackPutName(packed, where));
        break;
      case 'e':
        droppedEntries.push({ directory: unpackFileid(packed, where), name: copyOf(packed, 8, packed.byteLength - 8) });
        break;
      case 'O': {
        const entry = unpackOwner(packed, where);
        owners.set(entry.owner.fileid, entry);
        break;
      }
      case 'o':
        owners.set(unpackFileid(packed, where), null);
        break;
      default:
        corrupt(where, `a change of kind ${JSON.stringify(kind)}`);
    }
  }
  const image = {
    inodes: [] as InodeRecord[],
    droppedInodes: [] as FileId[],
    entries,
    droppedEntries,
    owners: [] as OwnerEntry[],
    droppedOwners: [] as FileId[],
  };
  for (const [fileid, record] of inodes) {
    if (record === null) image.droppedInodes.push(fileid);
    else image.inodes.push(record);
  }
  for (const [fileid, entry] of owners) {
    if (entry === null) image.droppedOwners.push(fileid);
    else image.owners.push(entry);
  }
  return image;
}

/** Inverse of `unpackChanges`: drops before puts. */
export function packChanges(image: AfterImage, sequence: number): Buffer {
  const parts: Buffer[] = [];
  const add = (kind: string, packed: Buffer): void => {
    const head = Buffer.allocUnsafe(5);
    head.writeUInt32LE(packed.byteLength + 1, 0);
    head.write(kind, 4, 'latin1');
    parts.push(head, packed);
  };
  for (const fileid of image.droppedInodes) add('i', packFileid(fileid));
  for (const { directory, name } of image.droppedEntries) add('e', packFileid(directory, name));
  for (const fileid of image.droppedOwners) add('o', packFileid(fileid));
  for (const record of image.inodes) add('I', packInode(record, sequence));
  for (const entry of image.entries) add('E', packPutName(entry));
  for (const owner of image.owners) add('O', packOwner(owner, sequence));
  return Buffer.concat(parts);
}

/** The outcome of a verb from its reply. `changes`: those of the same reply, which it may refer to. @throws ApplianceError `registry-corrupt`. */
export function unpackOutcome<V extends Verb>(verb: V, bytes: Buffer, changes: Buffer, where: string): Outcomes[V] {
  const parts = partsOf(bytes, changes, where);
  const shape = OUTCOME_SHAPES[verb];
  if (shape === undefined) return (parts.length === 0 ? null : corrupt(where, `${verb} answers nothing`)) as Outcomes[V];
  const kind = parts[0]?.toString('latin1') ?? '';
  const fields = Object.hasOwn(shape, kind) ? shape[kind] : undefined;
  if (fields === undefined) return corrupt(where, `${verb} does not answer ${JSON.stringify(kind)}`);
  const outcome: Record<string, unknown> = { kind };
  let at = 1;
  const next = (): Buffer => parts[at++] ?? corrupt(where, `${verb} answers ${kind} with ${parts.length} parts`);
  for (const name of Object.keys(fields)) outcome[name] = fieldFrom(fields[name] ?? 'which', next, where);
  if (at !== parts.length) return corrupt(where, `${verb} answers ${kind} with ${parts.length} parts`);
  return outcome as unknown as Outcomes[V];
}

function partsOf(bytes: Buffer, changes: Buffer, where: string): Buffer[] {
  const parts: Buffer[] = [];
  let records: Change[] | null = null;
  for (let at = 0; at < bytes.byteLength;) {
    const length = at + 4 <= bytes.byteLength ? bytes.readUInt32LE(at) : REFERENCE;
    at += 4;
    if (length >= REFERENCE) {
      records ??= changesOf(changes, where);
      parts.push(records[length - REFERENCE - 1]?.packed ?? corrupt(where, 'an outcome refers to a change that is not there'));
    } else {
      if (at + length > bytes.byteLength) return corrupt(where, 'an outcome of the wrong form');
      parts.push(bytes.subarray(at, at + length));
      at += length;
    }
  }
  return parts;
}

function fieldFrom(field: OutcomeField, next: () => Buffer, where: string): unknown {
  switch (field) {
    case 'inode':
      return inodeOf(next(), where);
    case 'inode-or-null': {
      const packed = next();
      return packed.byteLength === 0 ? null : inodeOf(packed, where);
    }
    case 'change':
      return { before: inodeOf(next(), where), after: inodeOf(next(), where) };
    case 'owner':
      return unpackOwner(next(), where).owner;
    case 'which': {
      const which = next().toString('latin1');
      return which === 'from' || which === 'to' ? which : corrupt(where, `neither from nor to: ${JSON.stringify(which)}`);
    }
  }
}

/** Inverse of `unpackOutcome`, without references: for what a recovery round brings back. */
export function packOutcome<V extends Verb>(verb: V, outcome: Outcomes[V]): Buffer {
  const shape = OUTCOME_SHAPES[verb];
  if (shape === undefined) return Buffer.alloc(0);
  const source = outcome as unknown as Readonly<Record<string, unknown>> & { readonly kind: string };
  const parts: Buffer[] = [];
  const add = (packed: Buffer): void => {
    const head = Buffer.allocUnsafe(4);
    head.writeUInt32LE(packed.byteLength, 0);
    parts.push(head, packed);
  };
  // nextCookie is no part of an outcome: any that passes the check will do.
  const packedInode = (inode: Inode): Buffer =>
    packInode({ inode, nextCookie: inode.type === 'directory' ? 3 : null, unlinkedMs: inode.state === 'unlinked' ? 0 : null }, 0);
  add(Buffer.from(source.kind, 'latin1'));
  const fields = shape[source.kind] ?? {};
  for (const name of Object.keys(fields)) {
    const value = source[name];
    switch (fields[name]) {
      case 'inode':
        add(packedInode(value as Inode));
        break;
      case 'inode-or-null':
        add(value === null ? Buffer.alloc(0) : packedInode(value as Inode));
        break;
      case 'change':
        add(packedInode((value as { before: Inode }).before));
        add(packedInode((value as { after: Inode }).after));
        break;
      case 'owner':
        add(packOwner({ owner: value as OwnerEntry['owner'], counterMax: (value as OwnerEntry['owner']).term.counter }, 0));
        break;
      default:
        add(Buffer.from(String(value), 'latin1'));
    }
  }
  return Buffer.concat(parts);
}
