/**
 * The registry that the routers of a simulated cluster share, as one process that executes verbs one after another: those of registry/sqlite over records in
 * memory. It can be away, and it can fail over to a primary that never heard of the last seconds; then it works only once the recovery round of design
 * section 5 is over: the routers give back what they remember (redo entries, terms they serve), and the generation goes up.
 */
import { decodeAfterImage } from '../../../registry/after-image.ts';
import { DIRECTORY_BYTES, FILEID_MIN } from '../../../registry/inode-record.ts';
import type { Inode } from '../../../registry/inode.ts';
import { decodeOutcome, type Verb } from '../../../registry/outcome-codec.ts';
import type { EntriesOutcome, LookupOutcome, OutboxEntry, OwnerRecord, PoolUsage, RouterRecord } from '../../../registry/ports.ts';
import { executeVerb, type VerbEnvironment } from '../../../registry/sqlite/execute-verb.ts';
import type { VerbRequest } from '../../../registry/sqlite/worker-protocol.ts';
import { ApplianceError } from '../../../server/core/errors.ts';
import { compareEpoch, type FileId, type ObjectUuid, type RouterId } from '../../../server/core/ids.ts';
import type { Random } from '../../../server/core/time.ts';
import { timestampOf } from '../../../server/core/time.ts';
import { MemoryOperations } from './memory-operations.ts';
import { latin1, MemoryRecords } from './memory-records.ts';

/** What a router brings to a recovery round. */
export interface Contribution {
  readonly router: RouterId;
  /** Null: it has not joined yet. */
  readonly record: RouterRecord | null;
  /** What it was answered of, durable on its own disk. */
  readonly redo: readonly OutboxEntry[];
  /** What it serves. */
  readonly owned: readonly OwnerRecord[];
}

/** A verb's answer, and the entry that redoes it. */
export interface Executed {
  readonly outcome: unknown;
  readonly entry: OutboxEntry | null;
}

const FILEIDS_JUMPED = 2 ** 32;
/** Verbs with which an object could come to another router. */
const MOVING_VERBS: ReadonlySet<Verb> = new Set<Verb>(['beginMove', 'transfer', 'markDead']);

export class RegistryServer {
  readonly vpool: { readonly name: string; readonly uuid: string };
  readonly root: FileId;
  readonly records: MemoryRecords;
  readonly inlineBytesMax: number;
  readonly #nowMs: () => number;
  readonly #operations: MemoryOperations;
  #generation = 1;
  /** No moves, takeovers and funerals before this time of the world. */
  #holdUntilMs = 0;
  #round: { lost: readonly OutboxEntry[]; readonly contributions: Map<RouterId, Contribution> } | null = null;
  /** Raised by every failover: connections to the former primary end, with the answers on them. */
  primary = 1;
  /** Entries that nobody brought back, of failovers so far: what routers were told and is gone. */
  lostEntries = 0;

  constructor(components: { nowMs: () => number; random: Random }, settings: { vpoolName: string; inlineBytesMax: number }) {
    const { random } = components;
    this.#nowMs = components.nowMs;
    this.inlineBytesMax = settings.inlineBytesMax;
    this.root = FILEID_MIN as FileId;
    this.vpool = { name: settings.vpoolName, uuid: random.bytes(16).toString('hex') };
    const time = timestampOf(1_600_000_000_000);
    const root: Inode = {
      fileid: this.root,
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
      atime: time,
      mtime: time,
      ctime: time,
      parent: this.root,
      exclusiveVerifier: null,
      symlinkTarget: null,
      inlineBytes: null,
      uuid: null,
    };
    this.records = new MemoryRecords(root);
    this.#operations = new MemoryOperations(this.records);
  }

  get generation(): number {
    return this.#generation;
  }

  get inRound(): boolean {
    return this.#round !== null;
  }

  /** Executes one verb. `wallMs`: the caller's wall clock. Throws what the verb throws, with nothing changed. */
  execute(request: VerbRequest, wallMs: number): Executed {
    if (this.#nowMs() < this.#holdUntilMs) this.#refuseMoves(request);
    const { records } = this;
    const environment = {
      records,
      operations: this.#operations,
      generation: this.#generation,
      inlineBytesMax: this.inlineBytesMax,
    } as unknown as VerbEnvironment;
    return records.transaction(this.#nowMs(), () => {
      const before = records.counters.sequence;
      const text = executeVerb(environment, request, wallMs);
      const outcome = decodeOutcome(request.verb, text, 'simulated registry');
      const operationId = request.mutation?.operationId ?? null;
      // A repetition is told the entry of the first time: the first answer may never have come.
      const entry =
        records.counters.sequence > before
          ? (records.outbox.at(-1) ?? null)
          : operationId === null
            ? null
            : (records.outbox.findLast((candidate) => candidate.operationId === operationId && candidate.verb === request.verb) ?? null);
      return { outcome, entry: entry === null ? null : { ...entry, outcome: operationId === null ? null : text } };
    });
  }

  #refuseMoves(request: VerbRequest): void {
    let refused = MOVING_VERBS.has(request.verb);
    if (request.verb === 'claim') {
      const [fileid, router] = request.arguments as unknown as readonly [FileId, RouterId];
      const former = this.records.owner(fileid);
      refused = former !== null && former.owner.router !== router;
    }
    if (refused) throw new ApplianceError('registry-unavailable', 'no move and no takeover so soon after a failover', { retryable: true });
  }

  /** Fails over to a primary that has nothing since `sinceMs` of the world's time; from here to `endRound` nobody may use it. */
  failOver(sinceMs: number): void {
    this.primary += 1;
    const lost = [...this.records.outbox];
    this.records.forget(sinceMs);
    const { sequence } = this.records.counters;
    const entries = lost.filter((entry) => entry.sequence > sequence);
    if (this.#round === null) this.#round = { lost: entries, contributions: new Map() };
    else this.#round.lost = [...this.#round.lost.filter((entry) => entry.sequence <= sequence), ...entries];
  }

  contribute(contribution: Contribution): void {
    this.#round?.contributions.set(contribution.router, contribution);
  }

  hasContributed(router: RouterId): boolean {
    return this.#round?.contributions.has(router) ?? true;
  }

  /**
   * The round is over: everything that somebody brought is redone in the order of its sequence, the highest term of an object wins, and a new generation
   * begins. What nobody was told of and lies below something redone is redone too: replication keeps the order, so what was confirmed later had it.
   */
  endRound(leaseMs: number): void {
    const round = this.#round;
    if (round === null) return;
    this.#round = null;
    const { records } = this;
    const held = new Map<number, OutboxEntry>();
    for (const { redo } of round.contributions.values()) {
      for (const entry of redo) if (entry.sequence > records.counters.sequence) held.set(entry.sequence, entry);
    }
    const last = Math.max(0, ...held.keys());
    for (const entry of round.lost) {
      if (entry.sequence <= records.counters.sequence || held.has(entry.sequence)) continue;
      if (entry.sequence < last) held.set(entry.sequence, entry);
      else this.lostEntries += 1;
    }
    records.transaction(this.#nowMs(), () => {
      for (const entry of [...held.values()].sort((a, b) => a.sequence - b.sequence)) {
        const image = decodeAfterImage(entry.afterImage, 'redo');
        records.apply(image);
        // A failover soon after another one may go back behind the jump of the first.
        for (const { inode } of image.inodes) records.counters.nextFileid = Math.max(records.counters.nextFileid, inode.fileid + 1);
        records.counters.sequence = entry.sequence;
        records.pushOutbox(entry);
        if (entry.operationId !== null && entry.outcome !== null) {
          this.#operations.remember(entry.operationId, entry.verb, this.#nowMs() + 1_700_000_000_000, entry.outcome);
        }
      }
      for (const { record: router, owned } of round.contributions.values()) {
        if (router === null) continue;
        const known = records.router(router.id);
        if (known === null || known.incarnation !== router.incarnation) {
          if (known !== null) records.bury(known.id, known.incarnation);
          if (!records.isDead(router.incarnation)) records.putRouter(router);
        }
        for (const owner of owned) {
          const entry = records.owner(owner.fileid);
          const inode = records.inode(owner.fileid);
          if (inode === null || inode.inode.state !== 'live') continue;
          if (entry === null || compareEpoch(owner.term, entry.owner.term) > 0) {
            records.putOwner({ owner, counterMax: Math.max(owner.term.counter, entry?.counterMax ?? 0) });
          }
        }
      }
      records.counters.nextFileid += FILEIDS_JUMPED;
      records.counters.sequence += 1000;
    });
    this.#generation += 1;
    this.#holdUntilMs = this.#nowMs() + leaseMs;
  }

  inode(fileid: FileId, inodeGeneration: number | null): Inode | null {
    const record = this.records.inode(fileid);
    if (record === null || record.inode.state !== 'live') return null;
    return inodeGeneration === null || record.inode.inodeGeneration === inodeGeneration ? record.inode : null;
  }

  lookup(directory: FileId, name: Uint8Array): LookupOutcome {
    const found = this.inode(directory, null);
    if (found === null) return { kind: 'stale' };
    if (found.type !== 'directory') return { kind: 'not-directory', inode: found };
    const entry = this.records.names.get(directory)?.get(latin1(name));
    const inode = entry === undefined ? null : this.inode(entry.fileid, null);
    return inode === null ? { kind: 'absent', directory: found } : { kind: 'found', inode, directory: found };
  }

  entries(directory: FileId, afterCookie: number, limit: number): EntriesOutcome {
    const found = this.inode(directory, null);
    if (found === null) return { kind: 'stale' };
    if (found.type !== 'directory') return { kind: 'not-directory', inode: found };
    const behind = [...(this.records.names.get(directory)?.values() ?? [])]
      .filter((entry) => entry.cookie > afterCookie)
      .sort((a, b) => a.cookie - b.cookie);
    const entries = behind.slice(0, limit).map(({ name, cookie, fileid }) => {
      const inode = this.inode(fileid, null);
      if (inode === null) throw new ApplianceError('registry-corrupt', `a name of ${directory} names ${fileid}, which is not live`);
      return { name, cookie, inode };
    });
    return { kind: 'entries', directory: found, entries, eof: behind.length <= limit };
  }

  tombstones(after: FileId, limit: number): { inode: Inode; sinceMs: number }[] {
    return [...this.records.inodes.values()]
      .filter(({ inode }) => inode.state === 'unlinked' && inode.fileid > after)
      .sort((a, b) => a.inode.fileid - b.inode.fileid)
      .slice(0, limit)
      .map(({ inode, unlinkedMs }) => ({ inode, sinceMs: unlinkedMs ?? 0 }));
  }

  owner(fileid: FileId): OwnerRecord | null {
    return this.records.owner(fileid)?.owner ?? null;
  }

  ownedBy(router: RouterId, after: FileId, limit: number): OwnerRecord[] {
    return [...this.records.owners.values()]
      .map(({ owner }) => owner)
      .filter((owner) => owner.router === router && owner.fileid > after)
      .sort((a, b) => a.fileid - b.fileid)
      .slice(0, limit);
  }

  routers(): RouterRecord[] {
    return [...this.records.routers.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  pending(after: number, limit: number): OutboxEntry[] {
    return this.records.outbox
      .filter((entry) => entry.sequence > after)
      .slice(0, limit)
      .map((entry) => {
        const remembered = entry.operationId === null ? undefined : this.records.operations.get(`${entry.verb} ${entry.operationId}`);
        return { ...entry, outcome: remembered?.outcome ?? null };
      });
  }

  usage(): PoolUsage {
    return { inodes: this.records.counters.inodes, usedBytes: this.records.counters.usedBytes };
  }

  position(): { generation: number; sequence: number } {
    return { generation: this.#generation, sequence: this.records.counters.sequence };
  }
}

/** Random parts of a new inode. */
export function drawnInode(random: Random): { inodeGeneration: number; uuid: ObjectUuid } {
  return { inodeGeneration: random.bytes(6).readUIntBE(0, 6), uuid: random.bytes(16).toString('hex') as ObjectUuid };
}
