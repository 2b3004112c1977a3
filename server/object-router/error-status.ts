/** The one place where failures of the environment become nfsstat3. */
import { StoreError } from '../../backends/object-store.ts';
import { errorCode } from '../core/errors.ts';
import { Status } from '../nfsd/file-system.ts';
import type { ErrorStatus } from '../nfsd/file-system.ts';

/**
 * JUKEBOX for what goes on by itself once its reason is over; NOSPC is real (ESXi pauses the VM, which is right); the rest is IO.
 *
 * A backend that refuses (a password that was changed, a certificate that ran out) is a state that people see and end; a VM that was told of it would
 * have lost its disk for good.
 */
export function statusOfError(error: unknown): ErrorStatus {
  if (error instanceof StoreError) {
    switch (error.class) {
      case 'retry':
      case 'absent':
      case 'denied':
        return Status.JUKEBOX;
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
    // Removed while the operation was under way.
    case 'object-gone':
      return Status.STALE;
    case 'overloaded':
    case 'registry-unavailable':
    case 'generation-changed':
    case 'object-closing':
    case 'spill-full':
    case 'fenced':
    case 'not-owner':
    case 'object-held':
    case 'object-recovering':
    case 'lease-lapsed':
    case 'incarnation-dead':
    case 'peer-unavailable':
    // Versions or certificates do not fit: somebody will mend it.
    case 'peer-refused':
      return Status.JUKEBOX;
    default:
      return Status.IO;
  }
}
