/**
 * After-images: what the outbox keeps of a change (invariant 7, docs/formats/registry.md). Applying the after-images of all changes in
 * sequence order to nothing gives the records again; applying one twice is harmless.
 */
import type { FileId, Incarnation } from '../server/core/ids.ts';
import { FILEID_MIN, inodeFromJson, type InodeRecord, jsonFromInode, NAME_BYTES_MAX } from './inode-record.ts';
import { jsonFromOwner, type OwnerEntry, ownerFromJson } from './owner-record.ts';
import { base64From, base64Of, corrupt, HEX_32, integerOf, jsonOf, listOf, patternOf, recordOf } from './record-check.ts';

/** Version of the JSON; a reader refuses a higher one. */
export const AFTER_IMAGE_VERSION = 1;
/** One verb changes a handful of records; this only bounds hostile input. */
const RECORDS_MAX = 10_000;

export interface NamedRecord {
  readonly directory: FileId;
  readonly name: Uint8Array;
  readonly cookie: number;
  readonly fileid: FileId;
}

/** Records as they are after the change. `dropped`: records that are no more. Order: drops of entries come before puts. */
export interface AfterImage {
  readonly inodes: readonly InodeRecord[];
  readonly droppedInodes: readonly FileId[];
  readonly entries: readonly NamedRecord[];
  readonly droppedEntries: readonly { readonly directory: FileId; readonly name: Uint8Array }[];
  readonly owners: readonly OwnerEntry[];
  readonly droppedOwners: readonly FileId[];
}

/** JSON text; empty lists are left out. */
export function encodeAfterImage(image: AfterImage): string {
  const json: Record<string, unknown> = { version: AFTER_IMAGE_VERSION };
  if (image.inodes.length > 0) {
    json['inodes'] = image.inodes.map((record) => {
      const inode = jsonFromInode(record.inode);
      if (record.nextCookie !== null) inode['nextCookie'] = record.nextCookie;
      if (record.unlinkedMs !== null) inode['unlinkedMs'] = record.unlinkedMs;
      return inode;
    });
  }
  if (image.droppedInodes.length > 0) json['droppedInodes'] = image.droppedInodes;
  if (image.entries.length > 0) json['entries'] = image.entries.map((entry) => ({ ...entry, name: base64From(entry.name) }));
  if (image.droppedEntries.length > 0) json['droppedEntries'] = image.droppedEntries.map((entry) => ({ ...entry, name: base64From(entry.name) }));
  if (image.owners.length > 0)
    json['owners'] = image.owners.map((entry) => {
      const owner = { ...jsonFromOwner(entry.owner), counterMax: entry.counterMax };
      return entry.receiver === undefined ? owner : { ...owner, receiver: entry.receiver };
    });
  if (image.droppedOwners.length > 0) json['droppedOwners'] = image.droppedOwners;
  return JSON.stringify(json);
}

/** Inverse of `encodeAfterImage`. `where` names the outbox entry in messages. @throws ApplianceError `registry-corrupt`. */
export function decodeAfterImage(text: unknown, where: string): AfterImage {
  const json = recordOf(jsonOf(text, where, 'after-image'), where, 'after-image');
  if (json['version'] !== AFTER_IMAGE_VERSION)
    corrupt(where, `after-image of version ${String(json['version'])}, this program knows ${AFTER_IMAGE_VERSION}`);
  return {
    inodes: list(json, 'inodes', where).map((value) => inodeRecordFromJson(value, where)),
    droppedInodes: list(json, 'droppedInodes', where).map((value) => fileidOf(value, where)),
    entries: list(json, 'entries', where).map((value): NamedRecord => {
      const entry = recordOf(value, where, 'entry');
      return { ...nameFromJson(entry, where), cookie: cookieOf(entry['cookie'], where), fileid: fileidOf(entry['fileid'], where) };
    }),
    droppedEntries: list(json, 'droppedEntries', where).map((value) => nameFromJson(recordOf(value, where, 'entry'), where)),
    owners: list(json, 'owners', where).map((value): OwnerEntry => {
      const json = recordOf(value, where, 'owner');
      const counterMax = integerOf(json['counterMax'], 0, Number.MAX_SAFE_INTEGER, where, 'counterMax');
      const entry = { owner: ownerFromJson(value, where), counterMax };
      return json['receiver'] === undefined ? entry : { ...entry, receiver: patternOf(json['receiver'], HEX_32, where, 'receiver') as Incarnation };
    }),
    droppedOwners: list(json, 'droppedOwners', where).map((value) => fileidOf(value, where)),
  };
}

function inodeRecordFromJson(value: unknown, where: string): InodeRecord {
  const inode = inodeFromJson(value, where);
  const json = recordOf(value, where, 'inode');
  const nextCookie = json['nextCookie'] === undefined ? null : cookieOf(json['nextCookie'], where);
  const unlinkedMs = json['unlinkedMs'] === undefined ? null : integerOf(json['unlinkedMs'], 0, Number.MAX_SAFE_INTEGER, where, 'unlinkedMs');
  if ((nextCookie !== null) !== (inode.type === 'directory')) corrupt(where, 'nextCookie is for directories only');
  if ((unlinkedMs !== null) !== (inode.state === 'unlinked')) corrupt(where, 'unlinkedMs is for tombstones only');
  return { inode, nextCookie, unlinkedMs };
}

function nameFromJson(entry: Readonly<Record<string, unknown>>, where: string): { directory: FileId; name: Uint8Array } {
  return { directory: fileidOf(entry['directory'], where), name: base64Of(entry['name'], NAME_BYTES_MAX, where, 'name') };
}

function list(json: Readonly<Record<string, unknown>>, field: string, where: string): readonly unknown[] {
  return json[field] === undefined ? [] : listOf(json[field], RECORDS_MAX, where, field);
}

function fileidOf(value: unknown, where: string): FileId {
  return integerOf(value, FILEID_MIN, Number.MAX_SAFE_INTEGER, where, 'fileid') as FileId;
}

function cookieOf(value: unknown, where: string): number {
  return integerOf(value, 3, Number.MAX_SAFE_INTEGER, where, 'cookie');
}
