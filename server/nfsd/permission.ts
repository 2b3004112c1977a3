/** UNIX permission bits for callers with AUTH_SYS: what ACCESS grants (RFC 1813 §3.3.4) and what operations may do. */
import type { Attributes, Caller } from './file-system.ts';
import { FileType } from './file-system.ts';

/** ACCESS3_* bits. */
export const AccessBit = { READ: 0x01, LOOKUP: 0x02, MODIFY: 0x04, EXTEND: 0x08, DELETE: 0x10, EXECUTE: 0x20 } as const;

/** rwx bits, as in one octal digit of a mode. */
export const Permission = { READ: 4, WRITE: 2, EXECUTE: 1 } as const;

type Owned = Pick<Attributes, 'mode' | 'uid' | 'gid'>;

/** The rwx digit that applies to the caller: the owner's, the group's or the others'. uid 0 may everything. */
export function permissionsOf(caller: Caller, object: Owned): number {
  if (caller.uid === 0) return 7;
  if (caller.uid === object.uid) return (object.mode >> 6) & 7;
  if (caller.gid === object.gid || caller.gids.includes(object.gid)) return (object.mode >> 3) & 7;
  return object.mode & 7;
}

/** Whether all of `bits` are permitted. */
export function permits(caller: Caller, object: Owned, bits: number): boolean {
  return (permissionsOf(caller, object) & bits) === bits;
}

/**
 * The bits of `mask` that ACCESS grants. DELETE is about entries of a directory (RFC 1813: "delete an existing directory entry");
 * LOOKUP has no meaning for other objects, EXECUTE none for directories.
 */
export function grantedAccess(caller: Caller, object: Owned & Pick<Attributes, 'type'>, mask: number): number {
  const permissions = permissionsOf(caller, object);
  const isDirectory = object.type === FileType.DIR;
  let granted = 0;
  if ((permissions & Permission.READ) !== 0) granted |= AccessBit.READ;
  if ((permissions & Permission.WRITE) !== 0)
    granted |= AccessBit.MODIFY | AccessBit.EXTEND | (isDirectory || caller.uid === 0 ? AccessBit.DELETE : 0);
  if ((permissions & Permission.EXECUTE) !== 0) granted |= isDirectory ? AccessBit.LOOKUP : AccessBit.EXECUTE;
  // Root has every right, and ESXi asks for all of them whatever the object is (esxi.md 10, check 21).
  if (caller.uid === 0) granted |= AccessBit.LOOKUP | AccessBit.EXECUTE;
  return granted & mask;
}
