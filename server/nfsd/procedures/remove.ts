/** REMOVE and RMDIR, RFC 1813 §3.3.12, §3.3.13. */
import { isPending } from '../../core/maybe-promise.ts';
import type { WccResult } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { decodeName, isDotName, oldNameError } from '../names.ts';
import { refuse } from '../nfs-call.ts';
import type { NfsCall, NfsContext } from '../nfs-call.ts';
import { decodeHandle } from '../nfs-wire.ts';
import { replyWcc } from './wcc-result.ts';

/** REMOVE3args: struct { diropargs3 object; } */
export function serveRemove(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  call.args.assertEnd();
  const error = oldNameError(name);
  if (error !== null) return refuse(context, call, error, directory);
  return settle(call, context.fileSystem.remove(call, directory, name));
}

/** RMDIR3args: struct { diropargs3 object; }. `.` is INVAL and `..` EXIST, as RFC 1813 §3.3.13 lists them. */
export function serveRmdir(context: NfsContext, call: NfsCall): void | Promise<void> {
  const directory = decodeHandle(call.args);
  const name = decodeName(call.args);
  call.args.assertEnd();
  const error = isDotName(name) && name.length === 2 ? Status.EXIST : oldNameError(name);
  if (error !== null) return refuse(context, call, error, directory);
  return settle(call, context.fileSystem.rmdir(call, directory, name));
}

function settle(call: NfsCall, result: WccResult | Promise<WccResult>): void | Promise<void> {
  if (isPending(result)) return result.then((settled) => replyWcc(call, settled));
  replyWcc(call, result);
}
