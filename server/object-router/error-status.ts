/** The one place where failures of the environment become nfsstat3. */
import { StoreError } from '../../backends/object-store.ts';
import { errorCode } from '../core/errors.ts';
import { Status } from '../nfsd/file-system.ts';
import type { ErrorStatus } from '../nfsd/file-system.ts';

/**
 * JUKEBOX only for what is surely temporary and goes on by itself; NOSPC is real (ESXi pauses the VM, which is right); the rest is IO.
 */
export function statusOfError(error: unknown): ErrorStatus {
  if (error instanceof StoreError) {
    switch (error.class) {
      case 'retry':
      case 'absent':
        return Status.JUKEBOX;
      case 'denied':
        return Status.ROFS;
      case 'no-space':
        return Status.NOSPC;
      case 'corrupt':
        return Status.IO;
    }
  }
  switch (errorCode(error)) {
    case 'ENOSPC':
    case 'registry-no-space':
      return Status.NOSPC;
    case 'EDQUOT':
      return Status.DQUOT;
    case 'EROFS':
      return Status.ROFS;
    case 'overloaded':
    case 'registry-unavailable':
    case 'generation-changed':
    case 'object-closing':
    case 'spill-full':
    case 'fenced':
      return Status.JUKEBOX;
    default:
      return Status.IO;
  }
}
