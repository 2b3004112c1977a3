/**
 * NFS version 3 (RFC 1813) as an RpcProgram over a FileSystem. One file per procedure under `procedures/`; here is what all of them
 * share: credentials, export rules, the observer, and what happens when a file system fails in a way it must not.
 */
import { AssertionError } from '../core/assert.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { Clock } from '../core/time.ts';
import type { DispatchRefusal, RpcCall, RpcProgram } from '../oncrpc/rpc-program.ts';
import { XdrError } from '../oncrpc/xdr-error.ts';
import type { ExportAccess, ExportDecision } from './export-access.ts';
import type { FileSystem } from './file-system.ts';
import { Status } from './file-system.ts';
import type { LateCalls, NfsContext } from './nfs-call.ts';
import { NfsCall } from './nfs-call.ts';
import { HANDLE_BYTES_MAX, NFS_PROGRAM, NFS_VERSION } from './nfs-wire.ts';
import type { NfsObserver } from './observer.ts';
import { isChanging, isNonIdempotent, NFS_PROCEDURE_NAMES } from './procedure-table.ts';
import { serveAccess } from './procedures/access.ts';
import { serveCommit } from './procedures/commit.ts';
import { serveCreate, serveMkdir, serveMknod, serveSymlink } from './procedures/create.ts';
import { serveFsinfo, serveFsstat, servePathconf } from './procedures/fsstat.ts';
import { serveGetattr } from './procedures/getattr.ts';
import { serveLookup } from './procedures/lookup.ts';
import { serveRead } from './procedures/read.ts';
import { serveReaddir, serveReaddirplus } from './procedures/readdir.ts';
import { serveReadlink } from './procedures/readlink.ts';
import { serveRemove, serveRmdir } from './procedures/remove.ts';
import { serveLink, serveRename } from './procedures/rename.ts';
import { serveSetattr } from './procedures/setattr.ts';
import { serveWrite } from './procedures/write.ts';

export interface NfsProgramSettings {
  /** The export whose rules hold for the file system's handles, e.g. `vpool1`. */
  readonly exportName: string;
  /** READs of more are answered with this much. At least the file system's rtmax. */
  readonly readBytesMax: number;
  /** Longest page of a directory. */
  readonly readdirBytesMax: number;
  /** Serve AUTH_NONE callers (as nobody). Otherwise they get AUTH_TOOWEAK. */
  readonly allowAuthNone: boolean;
}

/** ESXi may ask for more than rtmax (esxi.md 1.2): 4 MiB was enough in the field. Listing pages stay short enough not to hold up others. */
export const DEFAULT_NFS_SETTINGS = {
  readBytesMax: 4 * 1024 * 1024,
  readdirBytesMax: 128 * 1024,
  allowAuthNone: false,
} as const satisfies Partial<NfsProgramSettings>;

type Serve = (context: NfsContext, call: NfsCall) => void | Promise<void>;

function serveNull(_context: NfsContext, call: NfsCall): void {
  call.args.assertEnd();
  call.begin(0);
  call.finish(Status.OK);
}

/** By procedure number. */
const SERVE: readonly Serve[] = [
  serveNull,
  serveGetattr,
  serveSetattr,
  serveLookup,
  serveAccess,
  serveReadlink,
  serveRead,
  serveWrite,
  serveCreate,
  serveMkdir,
  serveSymlink,
  serveMknod,
  serveRemove,
  serveRmdir,
  serveRename,
  serveLink,
  serveReaddir,
  serveReaddirplus,
  serveFsstat,
  serveFsinfo,
  servePathconf,
  serveCommit,
];

/** Decisions remembered at most; beyond, all are asked again. */
const DECISIONS_MAX = 4096;

const NOBODY: Exclude<ExportDecision, 'denied'> = { readOnly: true, squash: 'all', anonymousUid: 65_534, anonymousGid: 65_534 };

export interface NfsProgramComponents {
  readonly fileSystem: FileSystem;
  readonly access: ExportAccess;
  /** Monotonic time for latencies; needed only with an observer. */
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer: NfsObserver | null;
}

export class NfsProgram implements RpcProgram {
  readonly program = NFS_PROGRAM;
  readonly versionFirst = NFS_VERSION;
  readonly versionLast = NFS_VERSION;
  readonly name = 'nfs';
  readonly #context: NfsContext;
  readonly #access: ExportAccess;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #observer: NfsObserver | null;
  readonly #settings: NfsProgramSettings;
  readonly #decisions = new Map<string, ExportDecision>();
  #lastAddress = '';
  #lastDecision: ExportDecision = 'denied';
  readonly #late: LateCalls = {
    finished: (call) => this.#finished(call),
    broken: (call, error) => this.#broken(call, error),
  };

  constructor(components: NfsProgramComponents, settings: NfsProgramSettings) {
    this.#context = {
      fileSystem: components.fileSystem,
      readBytesMax: settings.readBytesMax,
      readdirBytesMax: settings.readdirBytesMax,
    };
    this.#access = components.access;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#observer = components.observer;
    this.#settings = settings;
  }

  procedureName(_version: number, procedure: number): string {
    return NFS_PROCEDURE_NAMES[procedure] ?? 'unknown';
  }

  isCached(_version: number, procedure: number): boolean {
    return isNonIdempotent(procedure);
  }

  dispatch(rpc: RpcCall): MaybePromise<DispatchRefusal> {
    const serve = SERVE[rpc.procedure];
    if (serve === undefined) return 'procedure-unavailable';
    const isNull = rpc.procedure === 0;
    // RFC 1813 §2.1, RFC 5531 §10: NULL needs no authentication.
    if (rpc.credential.flavor === 'none' && !isNull && !this.#settings.allowAuthNone) {
      this.#observer?.started(rpc.procedure);
      this.#observer?.finished(rpc.procedure, -1, 0, 0, 0);
      return 'auth-too-weak';
    }
    const decision = isNull ? NOBODY : this.#decide(rpc.clientAddress);
    const observer = this.#observer;
    const call = new NfsCall(rpc, decision === 'denied' ? NOBODY : decision, observer === null ? 0 : this.#clock.monotonicMs(), this.#late);
    observer?.started(rpc.procedure);
    try {
      // Denied callers keep their socket: closing it makes ESXi hosts reconnect in a storm (esxi.md 1.3).
      if (decision === 'denied') call.fail(Status.ACCES);
      else {
        const pending = call.readOnly && isChanging(rpc.procedure) ? this.#refuseChange(call) : serve(this.#context, call);
        if (isPending(pending)) return this.#settle(call, pending);
        // Answered by `settle`, or to be: a promise would cost as much as the rest.
        if (call.isLate && call.status === -1) return null;
      }
    } catch (error) {
      this.#broken(call, error);
    }
    this.#finished(call);
    return null;
  }

  async #settle(call: NfsCall, pending: Promise<void>): Promise<null> {
    try {
      await pending;
    } catch (error) {
      this.#broken(call, error);
    }
    this.#finished(call);
    return null;
  }

  #finished(call: NfsCall): void {
    if (this.#observer === null) return;
    const wellDone = call.status === Status.OK;
    this.#observer.finished(
      call.procedure,
      call.status,
      this.#clock.monotonicMs() - call.startedMs,
      wellDone ? call.bytesRead : 0,
      wellDone ? call.bytesWritten : 0,
    );
  }

  /** The file system threw or rejected: a bug (see its port). The caller gets an answer all the same, and people get to know. Assertions stop the process, see RpcServer. */
  #broken(call: NfsCall, error: unknown): void {
    if (error instanceof XdrError || error instanceof AssertionError) {
      this.#finished(call);
      throw error;
    }
    this.#logger.error(
      { err: error, procedure: this.procedureName(NFS_VERSION, call.procedure), client: call.address },
      'a procedure failed unexpectedly',
    );
    if (call.status === -1) call.fail(Status.SERVERFAULT);
  }

  /** ROFS with the attributes of the first handle in the arguments, which all changing procedures begin with. */
  #refuseChange(call: NfsCall): void | Promise<void> {
    const object = call.args.opaque(HANDLE_BYTES_MAX);
    const result = this.#context.fileSystem.getattr(call, object);
    if (isPending(result)) {
      return result.then((settled) => call.fail(Status.ROFS, settled.status === Status.OK ? settled.attributes : null));
    }
    call.fail(Status.ROFS, result.status === Status.OK ? result.attributes : null);
  }

  #decide(address: string): ExportDecision {
    if (address === this.#lastAddress) return this.#lastDecision;
    let decision = this.#decisions.get(address);
    if (decision === undefined) {
      if (this.#decisions.size >= DECISIONS_MAX) this.#decisions.clear();
      decision = this.#access.decide(address, this.#settings.exportName);
      this.#decisions.set(address, decision);
    }
    this.#lastAddress = address;
    this.#lastDecision = decision;
    return decision;
  }
}
