/** Arguments of CREATE_VPOOL_SCRIPT from ARGV[2] on. */
import type { ObjectUuid } from '../../server/core/ids.ts';
import type { Random } from '../../server/core/time.ts';
import { timestampOf } from '../../server/core/time.ts';
import { DIRECTORY_BYTES } from '../inode-record.ts';
import { packInode } from './packed-inode.ts';
import type { ScriptArgument } from './redis-link.ts';
import { ROOT_FILEID } from './redis-namespace.ts';

export interface NewVpool {
  readonly vpoolName: string;
  /** 32 lower-case hex digits, drawn by the caller. */
  readonly vpoolUuid: ObjectUuid;
  /** The link's text for the Redis process. */
  readonly identity: string;
  /** The first generation: above every one seen before. */
  readonly generation: number;
  readonly wallMs: number;
}

export function createVpoolArguments(vpool: NewVpool, random: Random): ScriptArgument[] {
  const now = timestampOf(vpool.wallMs);
  const root = packInode(
    {
      inode: {
        fileid: ROOT_FILEID,
        inodeGeneration: random.bytes(6).readUIntBE(0, 6),
        type: 'directory',
        class: 'none',
        state: 'live',
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink: 2,
        sizeBytes: DIRECTORY_BYTES,
        usedBytes: DIRECTORY_BYTES,
        atime: now,
        mtime: now,
        ctime: now,
        parent: ROOT_FILEID,
        exclusiveVerifier: null,
        symlinkTarget: null,
        inlineBytes: null,
        uuid: null,
      },
      nextCookie: 3,
      unlinkedMs: null,
    },
    0,
  );
  return [vpool.vpoolName, vpool.vpoolUuid, root, vpool.identity, vpool.generation];
}
