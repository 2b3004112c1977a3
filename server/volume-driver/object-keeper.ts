/**
 * Looks after one open object behind its log: uploads sealed segments, checkpoints the extent map, moves the root in the registry, releases local
 * copies, reclaims what nothing references (design section 6).
 *
 * Order, which is what makes a crash at any point harmless: object durable and read back -> root in the registry -> local copy released. A checkpoint
 * is named by the root only when every segment it refers to is below the uploaded high-water. Nothing is deleted before a root that does not refer to
 * it was durable and the grace time passed.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import type { ClosedEpoch, OwnedCopy, OwnerRecord, Root } from '../../registry/ports.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock } from '../core/time.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { BlockObject } from './block-object.ts';
import type { GarbageEntry } from './checkpoint-codec.ts';
import { formatObjectName } from './object-names.ts';
import type { ObjectRecords } from './object-records.ts';
import { encodeObjectState } from './object-state.ts';
import { SegmentUploads } from './segment-uploads.ts';
import type { SealedSegment, StoredSegment } from './segment-uploads.ts';
import type { StorageNames } from './storage-names.ts';
import type { StoredWriter } from './stored-writer.ts';
import { putTermClaim } from './term-claim.ts';
import type { WriteBack } from './write-back.ts';

/** Pages of the extent map that differ from the last checkpoint, at which one is due: each has to be held in RAM or spilled until then. */
const DIRTY_PAGES_MAX = 32_768;
/** Segments whose upload is told to the registry in one step; fewer when they come slowly, since until then they count as dirty. */
const ROOT_BATCH = 8;
const ROOT_EVERY_MS = 500;
/** Uploads of one object at a time: what a store far away needs for its bandwidth. All objects together are bounded by the LimitedStore. */
const UPLOADS_MAX = 4;
const NONE_DEAD: ReadonlySet<number> = new Set();
const RETRY_MS_MAX = 15_000;
const ATTRIBUTES_EVERY_MS = 3_000;
const PIN_LOOK_MS = 5;
/** How long an object that has just come stays while the write buffer is full and nothing of it went up yet. */
const PROGRESS_MS_MAX = 10_000;
/** The same while a checkpoint is due that all the moves before made give way: no more than what is under way, and the checkpoint, of a backend that takes 1 s for each. */
const LATE_MS_MAX = 3_000;
/** While twice as much is behind, however much has to go up before: else what each receiver has to read would grow without end. */
const OVERDUE_MS_MAX = 18_000;
/** Who has waited for a checkpoint so long waits for its PUT as well. With all before it less than what the receiver waits for an answer (30 s). */
const STORED_MS_MAX = 8_000;
/**
 * Of the log after which a checkpoint is due, the part after which it is for an object that has come from elsewhere and may go on soon: whoever receives it reads
 * all that is behind the checkpoint, beside the I/O of others.
 */
const MOVED_SHARE = 1 / 8;
const PROGRESS_LOOK_MS = 20;

export interface KeeperSettings {
  readonly vpoolUuid: string;
  readonly sealAfterMs: number;
  readonly checkpointAfterBytes: number;
  readonly graceTimeMs: number;
  /** How long nothing was acknowledged before the object is said to be clean. */
  readonly restMs: number;
}

export interface KeeperStart {
  readonly owner: OwnerRecord;
  readonly checkpointNumber: number;
  readonly checkpointSequence: number;
  /** Row of the root's checkpoint in the table; 0 = none. */
  readonly checkpointRow: number;
  readonly garbage: readonly GarbageEntry[];
  /** The term's claim is on the backend already. */
  readonly claimed: boolean;
  /** Of the log behind the checkpoint, what the root covers. The rest comes by `sealed`. */
  readonly loggedBytes: number;
  /** Another router gave it to this one. */
  readonly moved: boolean;
}

export class ObjectKeeper {
  readonly #store: ObjectStore;
  readonly #writer: StoredWriter;
  readonly #files: SegmentFiles;
  readonly #names: StorageNames;
  readonly #records: ObjectRecords;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #object: BlockObject;
  readonly #log: ObjectLog;
  readonly #writeBack: WriteBack | null;
  readonly #settings: KeeperSettings;
  readonly #pagesPressed: () => boolean;
  readonly #roomPressed: () => boolean;
  readonly #keepCalls: (durable: () => Promise<void>) => Promise<void>;

  #root: Root;
  /** With which it was opened here. */
  readonly #firstRoot: Root;
  #protection: 'clean' | 'unprotected' | 'changing';
  #protectionChange: Promise<void> | null = null;
  readonly #uploads: SegmentUploads;
  /** Stored, in order, and not covered by the root yet. */
  #uploaded: StoredSegment[] = [];
  #rootMovedMs = -Infinity;
  /** The root covers them; their local copies are still in `log/`. */
  #unreleased: StoredSegment[] = [];
  #checkpointNumber: number;
  #checkpointSequence: number;
  #checkpointRow: number;
  /** Of the log, whoever wrote them: one that moves from owner to owner would never have a checkpoint else. */
  #bytesSinceCheckpoint: number;
  #moved: boolean;
  #garbage: GarbageEntry[];
  /** Entries of #garbage, from the front, that the root's checkpoint lists: only those may be deleted. */
  #garbagePersisted: number;
  #running: Promise<void> | null = null;
  #again = false;
  #failures = 0;
  #retryAtMs = 0;
  #problem: Error | null = null;
  #claiming: Promise<void> | null = null;
  #attributesSequence = -1;
  #attributesAtMs = 0;
  #stopped = false;
  /** The object is being given away: what the receiver builds on stays as it is. */
  #pinned = false;
  #checkpointing = false;
  /** While the checkpoint under way waits for segments to go up: ends it at once, what goes up goes on. */
  #giveWay: (() => void) | null = null;
  /** What was applied when somebody looked, and since when that is so (monotonic). */
  #restSequence = -1;
  #restFromMs = 0;

  constructor(
    components: {
      store: ObjectStore;
      writer: StoredWriter;
      files: SegmentFiles;
      names: StorageNames;
      records: ObjectRecords;
      clock: Clock;
      logger: Logger;
      object: BlockObject;
      log: ObjectLog;
      writeBack: WriteBack | null;
      /** Spilled pages of all objects are near their bound: checkpoints make room. */
      pagesPressed: () => boolean;
      /** Much of the room for what is not on the backend yet is used. */
      roomPressed: () => boolean;
      /**
       * What is remembered of completed calls of the object is to outlive a power cut from here on; `durable` makes the log so up to where it is when called. Rejects as that
       * does.
       */
      keepCalls: (durable: () => Promise<void>) => Promise<void>;
    },
    settings: KeeperSettings,
    start: KeeperStart,
  ) {
    this.#store = components.store;
    this.#writer = components.writer;
    this.#files = components.files;
    this.#names = components.names;
    this.#records = components.records;
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#object = components.object;
    this.#log = components.log;
    this.#writeBack = components.writeBack;
    this.#pagesPressed = components.pagesPressed;
    this.#roomPressed = components.roomPressed;
    this.#keepCalls = components.keepCalls;
    this.#settings = settings;
    this.#root = start.owner.root;
    this.#firstRoot = start.owner.root;
    this.#uploads = new SegmentUploads(start.owner.root.uploadedSegment, UPLOADS_MAX);
    this.#protection = start.owner.protection.kind === 'clean' ? 'clean' : 'unprotected';
    this.#checkpointNumber = start.checkpointNumber;
    this.#checkpointSequence = start.checkpointSequence;
    this.#checkpointRow = start.checkpointRow;
    this.#bytesSinceCheckpoint = start.loggedBytes;
    this.#moved = start.moved;
    this.#garbage = [...start.garbage];
    this.#garbagePersisted = this.#garbage.length;
    if (start.claimed) this.#claiming = Promise.resolve();
  }

  /** The newest that the registry confirmed. */
  get root(): Root {
    return this.#root;
  }

  /**
   * From here to `unpin` no checkpoint is made, nothing is released and no garbage deleted; segments go on to the backend, and the root with them.
   * A checkpoint that still waits for uploads gives way. False, and nothing changed: one that is being stored did not end within `patienceMs`.
   * Waits before that, for some seconds at most, while there is no room for writes and nothing went up since the object came here, or while a checkpoint is due that all
   * the moves before made give way (decision 0039).
   */
  async pin(patienceMs: number): Promise<boolean> {
    const isLate = this.#lateMsMax() > 0;
    await this.#progress();
    this.#pinned = true;
    const deadlineMs = this.#clock.monotonicMs() + (isLate ? Math.max(patienceMs, STORED_MS_MAX) : patienceMs);
    for (;;) {
      this.#giveWay?.();
      if (!this.#checkpointing) return true;
      if (this.#clock.monotonicMs() >= deadlineMs) break;
      await this.#clock.sleep(PIN_LOOK_MS);
    }
    this.unpin();
    return false;
  }

  /** What is under way when an object moves goes up once more: one that moves faster than that would never make room (decision 0038). */
  async #progress(): Promise<void> {
    const beganMs = this.#clock.monotonicMs();
    if (this.#lateMsMax() > 0) this.kick();
    while (!this.#stopped) {
      const waitedMs = this.#clock.monotonicMs() - beganMs;
      if (!(this.#isPressed() && waitedMs < PROGRESS_MS_MAX) && waitedMs >= this.#lateMsMax()) return;
      await this.#clock.sleep(PROGRESS_LOOK_MS);
    }
  }

  /** Nothing of it went up here yet, and there is no room for more. */
  #isPressed(): boolean {
    return this.#roomPressed() && this.#uploads.numbers.length > 0 && this.#root.uploadedSegment === this.#firstRoot.uploadedSegment;
  }

  /** How long a move waits for a checkpoint; 0: none is due, or some owner had the time for one, or it cannot be made now. */
  #lateMsMax(): number {
    if (this.#problem !== null || this.#root.checkpoint !== this.#firstRoot.checkpoint) return 0;
    const { checkpointAfterBytes } = this.#settings;
    if (this.#bytesSinceCheckpoint < checkpointAfterBytes || this.#object.appliedSequence <= this.#checkpointSequence) return 0;
    if (this.#bytesSinceCheckpoint >= 2 * checkpointAfterBytes) return OVERDUE_MS_MAX;
    return this.#uploads.numbers.length <= 2 * UPLOADS_MAX ? LATE_MS_MAX : 0;
  }

  unpin(): void {
    this.#pinned = false;
    this.kick();
  }

  /** Another router owns the object: nothing begins any more, and what is under way is told to nobody. */
  cede(): void {
    this.#stopped = true;
    this.#problem = null;
  }

  /** Why the backend does not have everything, when it is not just a matter of time; null else. */
  get problem(): Error | null {
    return this.#problem;
  }

  /** Everything is on the backend and the registry knows. */
  get isClean(): boolean {
    return this.#protection === 'clean' && this.#unreleased.length === 0;
  }

  /** Wall clock from which the first garbage that the root's checkpoint lists may be deleted; null: there is none. */
  get garbageDueMs(): number | null {
    const first = this.#garbagePersisted > 0 ? this.#garbage[0] : undefined;
    return first === undefined ? null : first.sinceMs + this.#settings.graceTimeMs;
  }

  /** BlockObjectHooks.confirmUnprotected. */
  confirmUnprotected(): MaybePromise<void> {
    if (this.#protection === 'unprotected') return undefined;
    const marked = this.#markUnprotected();
    // Who only looked whether it has to wait leaves it to the next call to hear of a failure.
    marked.catch(() => undefined);
    return marked;
  }

  /** DrivenObject.repeated: it rests from here on. */
  repeated(): MaybePromise<void> {
    this.#restSequence = -1;
    return this.confirmUnprotected();
  }

  async #markUnprotected(): Promise<void> {
    while (this.#protectionChange !== null) await this.#protectionChange;
    if (this.#protection === 'unprotected') return;
    await this.#changeProtection('unprotected');
  }

  async #changeProtection(kind: 'clean' | 'unprotected', attributes?: OwnedCopy): Promise<void> {
    const former = this.#protection;
    this.#protection = 'changing';
    const change = this.#records.update({ protection: { kind }, ...(attributes === undefined ? {} : { attributes }) }).then(
      () => {
        this.#protection = kind;
      },
      (error: unknown) => {
        // Unknown outcome: 'unprotected' is the safe belief about the record, 'clean' the safe one about what was confirmed.
        this.#protection = former === 'unprotected' && kind === 'clean' ? 'clean' : former;
        throw error;
      },
    );
    this.#protectionChange = change.catch(() => undefined);
    try {
      await change;
    } finally {
      this.#protectionChange = null;
    }
  }

  /** LogEvents.sealed. */
  sealed(segment: LocalSegment, totalBytes: number, lastSequence: number): void {
    this.#uploads.add({ segment, totalBytes, lastSequence });
    // So that a checkpoint made before its upload is done knows it too. Of a file's segments the size says whether they ever went up.
    if (this.#writeBack === null) this.#setSize(segment.number, totalBytes);
    this.#bytesSinceCheckpoint += totalBytes;
    this.kick();
  }

  /** Looks for work now. */
  kick(): void {
    if (this.#stopped) return;
    if (this.#running !== null) {
      this.#again = true;
      return;
    }
    if (this.#clock.monotonicMs() < this.#retryAtMs) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      if (this.#again) {
        this.#again = false;
        this.kick();
      }
    });
  }

  /** What failed is tried again now: its reason is over. */
  retryNow(): void {
    this.#retryAtMs = 0;
    this.kick();
  }

  /** About once a second while the object is not clean. */
  tick(): void {
    this.#rested();
    // What would wait behind others may as well grow: a backend that takes few requests gets whole segments. Of a file what is sealed goes up with a checkpoint only.
    const wouldWait = this.#writeBack === null && this.#uploads.isBusy;
    if (this.#log.openSegmentAgeMs > this.#settings.sealAfterMs && !wouldWait) {
      this.#log.seal().catch((error: unknown) => this.#report(error, 'sealing the open segment failed'));
    }
    this.kick();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#stopped) {
        // With a write-back, segments go up only if they are still needed once their blocks were stored elsewhere.
        if (this.#mustCheckpoint()) await this.#checkpoint();
        else if (this.#writeBack === null && this.#uploads.ready) await this.#upload(NONE_DEAD, Infinity);
        else if (this.#writeBack === null && this.#uploaded.length > 0) await this.#moveRoot(null);
        else if (this.#mayCheckpoint() && this.#isQuiet()) await this.#checkpoint();
        else break;
      }
      if (!this.#stopped) await this.#release();
      if (!this.#stopped) await this.#tellAttributes();
      if (!this.#stopped) await this.#becomeClean();
      if (!this.#stopped) await this.#deleteGarbage();
      this.#failures = 0;
      this.#problem = null;
    } catch (error) {
      this.#report(error, 'the backend does not take this object at the moment; its data stays on the local disk');
    }
  }

  #report(error: unknown, message: string): void {
    // What was cut off by the end of the router is done after the next start.
    if (this.#stopped) return;
    this.#failures += 1;
    // One line for a thousand failures: whether the backend is well, and what is wrong with this object, are states that can be asked for.
    const isNews = this.#problem === null || errorCode(error) !== errorCode(this.#problem);
    this.#problem = error as Error;
    this.#retryAtMs = this.#clock.monotonicMs() + Math.min(RETRY_MS_MAX, 250 * 2 ** Math.min(this.#failures, 8));
    this.#logger[isNews ? 'warn' : 'debug']({ err: error, object: this.#object.uuid, attempt: this.#failures }, message);
  }

  #mayCheckpoint(): boolean {
    if (this.#pinned || this.#object.busy || this.#log.problem !== null || this.#log.moving) return false;
    const behind = this.#object.appliedSequence > this.#checkpointSequence;
    if (!behind) return false;
    // A segment whose seal is still being repaired holds up everything behind it.
    return this.#log.lastBegunSegment - this.#uploads.lastSealed <= (this.#log.openSegmentBytes > 0 ? 1 : 0);
  }

  /** Also while the object is being written: one that never rests would never have a checkpoint. */
  #mustCheckpoint(): boolean {
    const share = this.#moved ? MOVED_SHARE : 1;
    const afterBytes = Math.min(this.#settings.checkpointAfterBytes * share, this.#writeBack?.relocateAfterBytes ?? Infinity);
    const due = this.#bytesSinceCheckpoint >= afterBytes || this.#object.map.dirtyPages >= DIRTY_PAGES_MAX || this.#pagesPressed();
    return due && this.#mayCheckpoint();
  }

  /** Everything is sealed and uploaded, nothing is being written. */
  #isQuiet(): boolean {
    return this.#log.idle && this.#log.openSegmentBytes === 0;
  }

  /** Uploads segments up to `upTo`. `dead`: those that the checkpoint being made does not refer to and covers; they need not go up. */
  async #upload(dead: ReadonlySet<number>, upTo: number): Promise<void> {
    const alone = this.#writeBack === null;
    await this.#uploads.run({
      upTo,
      dead,
      put: (sealed) => this.#putSegment(sealed),
      done: async (stored) => {
        this.#uploaded.push(...stored);
        // A root may pass over a dead segment only together with the checkpoint that covers it.
        const due = this.#uploaded.length >= ROOT_BATCH || this.#clock.monotonicMs() - this.#rootMovedMs >= ROOT_EVERY_MS;
        if (alone && (due || !this.#uploads.ready)) await this.#moveRoot(null);
      },
      enough: () => this.#stopped || (upTo === Infinity ? this.#mustCheckpoint() : !this.#checkpointing),
    });
  }

  async #putSegment(sealed: SealedSegment): Promise<void> {
    const { segment, totalBytes } = sealed;
    await this.#claim();
    failPoint('upload.before-put');
    const name = formatObjectName({ kind: 'segment', number: segment.number, term: segment.term });
    await this.#writer.put(this.#bucket(), this.#objectName(name), { kind: 'file', path: segment.path, offsetBytes: 0, lengthBytes: totalBytes });
    failPoint('upload.after-put');
    this.#setSize(segment.number, totalBytes);
  }

  #setSize(number: number, sizeBytes: number): void {
    const row = this.#object.rowOfSegment(number);
    if (row !== null && this.#object.table.isUsed(row)) this.#object.table.setSizeBytes(row, sizeBytes);
  }

  #claim(): Promise<void> {
    this.#claiming ??= putTermClaim({ store: this.#store, names: this.#names }, this.#settings.vpoolUuid, this.#object.uuid, this.#object.term).catch(
      (error: unknown) => {
        this.#claiming = null;
        throw error;
      },
    );
    return this.#claiming;
  }

  /** One registry step: high-water, and the checkpoint when there is a new one. Then local copies below it are released. */
  async #moveRoot(checkpoint: { readonly name: string; readonly nextSegment: number } | null): Promise<void> {
    const last = this.#uploaded.at(-1);
    const root: Root = {
      checkpoint: checkpoint?.name ?? this.#root.checkpoint,
      uploadedSegment: last?.segment.number ?? this.#root.uploadedSegment,
      uploadedSequence: last?.lastSequence ?? this.#root.uploadedSequence,
      // Epochs below the checkpoint are forgotten with it, not before: a recovery from the older one still needs them.
      closedEpochs: checkpoint === null ? this.#root.closedEpochs : openEpochs(this.#root.closedEpochs, checkpoint.nextSegment),
    };
    failPoint('root.before-update');
    await this.#records.update({ root });
    failPoint('root.after-update');
    this.#root = root;
    this.#rootMovedMs = this.#clock.monotonicMs();
    this.#unreleased.push(...this.#uploaded);
    this.#uploaded = [];
    await this.#release();
  }

  /** Local copies below the root become cache. What cannot be moved now is tried again: until then it counts as dirty. */
  async #release(): Promise<void> {
    for (let sealed = this.#unreleased[0]; sealed !== undefined && !this.#pinned && !this.#stopped; sealed = this.#unreleased[0]) {
      try {
        await (sealed.dead ? this.#files.drop(sealed.segment) : this.#files.release(sealed.segment));
      } catch (error) {
        // Whatever else is to be done after a root has moved does not wait for the local disk.
        this.#logger.warn({ err: error, file: sealed.segment.path }, 'a segment that the backend has could not be released; it is tried again');
        return;
      }
      this.#unreleased.shift();
    }
  }

  async #checkpoint(): Promise<void> {
    this.#checkpointing = true;
    try {
      await this.#makeCheckpoint();
    } finally {
      this.#checkpointing = false;
    }
  }

  async #makeCheckpoint(): Promise<void> {
    const { map, table } = this.#object;
    if (this.#writeBack !== null) {
      await this.#claim();
      await this.#writeBack.relocate();
    }
    await map.prepareCheckpoint();
    if (this.#object.busy || this.#log.moving || this.#pinned) return;
    // From here to beginCheckpoint nothing waits: garbage, sequence and map are of one instant.
    this.#collectGarbage();
    const frozen = map.beginCheckpoint();
    let ended = false;
    const faults = this.#log.faults;
    const countedBytes = this.#bytesSinceCheckpoint;
    try {
      const sequence = this.#object.appliedSequence;
      const nextSegment = this.#log.nextAppliedSegment;
      const needsSegment = this.#log.lastBegunSegment;
      const dead = this.#writeBack === null ? NONE_DEAD : this.#deadSegments(nextSegment);
      const attributes = encodeObjectState({ ...this.#object.attributes, unstableOpen: this.#object.appliedUnstableOpen });
      const number = this.#checkpointNumber + 1;
      const term = this.#object.term;
      const garbage = [...this.#garbage];
      const name = formatObjectName({ kind: 'checkpoint', number, term });
      const body = this.#writer.collect(
        frozen.encode({
          objectUuid: this.#object.uuid,
          vpoolUuid: this.#settings.vpoolUuid,
          term,
          number,
          sequence,
          nextSegment,
          objectSizeBytes: this.#object.attributes.sizeBytes,
          attributes,
          createdMs: Math.floor(this.#clock.wallMs()),
          garbage,
        }),
      );
      await using stored = await body;
      // Who wants to move waits for no backend: the checkpoint is made anew, and what went up for it stays there.
      this.#giveWay = () => {
        ended = true;
        frozen.abandon();
        this.#giveWay = null;
        this.#checkpointing = false;
      };
      try {
        if (this.#uploads.highWater < needsSegment) await this.#log.seal();
        await this.#upload(dead, needsSegment);
      } finally {
        this.#giveWay = null;
      }
      if (ended) return;
      if (this.#uploads.highWater < needsSegment) {
        throw new ApplianceError('log-fault', `segment ${needsSegment} of ${this.#object.uuid} is not sealed yet`, { retryable: true });
      }
      // What the map showed then may have been lost, and moved, by a fault meanwhile.
      if (this.#log.faults !== faults)
        throw new ApplianceError('log-fault', `the log of ${this.#object.uuid} had a fault during its checkpoint`, { retryable: true });
      await this.#claim();
      // No recovery reads what is behind a checkpoint, and so does not learn of calls in it (decision 0035). Those of this instant's map are remembered at the latest at the
      // end of the turn in which they were applied.
      await new Promise<void>((resolve) => this.#clock.soon(resolve));
      await this.#keepCalls(() => this.#log.sync());
      failPoint('checkpoint.before-put');
      // A number is used once, whatever becomes of it: names are never written twice.
      this.#checkpointNumber = number;
      await this.#writer.put(this.#bucket(), this.#objectName(name), stored.body);
      failPoint('checkpoint.after-put');
      const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term, number, sizeBytes: frozen.objectBytes });
      frozen.commit(row);
      ended = true;
      await this.#moveRoot({ name, nextSegment });
      this.#checkpointRow = row;
      this.#checkpointSequence = sequence;
      this.#bytesSinceCheckpoint -= countedBytes;
      this.#moved = false;
      this.#garbagePersisted = garbage.length;
      await this.#records.checkpointed();
    } finally {
      if (!ended) frozen.abandon();
    }
  }

  /** Sealed segments below `nextSegment` to which the map of this instant does not refer. */
  #deadSegments(nextSegment: number): Set<number> {
    const dead = new Set<number>();
    const referenced = new Set<number>();
    const { table } = this.#object;
    for (const row of table.rows())
      if (table.kind(row) === 'segment' && table.objectUuid(row) === '' && table.live(row) > 0) referenced.add(table.number(row));
    for (const number of this.#uploads.numbers) if (number < nextSegment && !referenced.has(number)) dead.add(number);
    return dead;
  }

  /** Rows that nothing references become garbage, to be listed by the next checkpoint and deleted after the grace time. */
  #collectGarbage(): void {
    const { table } = this.#object;
    const sinceMs = Math.floor(this.#clock.wallMs());
    for (const row of table.unreferencedRows()) {
      if (row === this.#checkpointRow) continue;
      if (table.objectUuid(row) !== '') {
        // Another object's: its owner decides.
        table.free(row);
        continue;
      }
      if (table.kind(row) === 'segment') {
        const number = table.number(row);
        if (number > this.#root.uploadedSegment || number >= this.#log.nextAppliedSegment) continue;
        if (this.#writeBack !== null && table.sizeBytes(row) === 0) {
          // It never went up.
          table.free(row);
          continue;
        }
        const local = this.#files.segment(this.#object.uuid, number, table.term(row));
        if (local !== null) this.#files.dropSoon(local);
      }
      this.#garbage.push({ bucket: '', name: table.objectName(row), sizeBytes: table.sizeBytes(row), sinceMs });
      table.free(row);
    }
  }

  async #deleteGarbage(): Promise<void> {
    const now = this.#clock.wallMs();
    while (this.#garbagePersisted > 0 && !this.#pinned && !this.#stopped) {
      const entry = this.#garbage[0] as GarbageEntry;
      if (now - entry.sinceMs < this.#settings.graceTimeMs) return;
      failPoint('reclaim.before-delete');
      await this.#store.delete(this.#bucket(), this.#objectName(entry.name));
      failPoint('reclaim.after-delete');
      this.#garbage.shift();
      this.#garbagePersisted -= 1;
    }
  }

  async #tellAttributes(): Promise<void> {
    const sequence = this.#object.appliedSequence;
    const now = this.#clock.monotonicMs();
    if (sequence === this.#attributesSequence || (now - this.#attributesAtMs < ATTRIBUTES_EVERY_MS && this.#attributesAtMs !== 0)) return;
    await this.#records.putAttributes(this.#object.attributes, this.#object.usedBytes);
    this.#attributesSequence = sequence;
    this.#attributesAtMs = now;
  }

  /**
   * Whether nothing was written, and no call answered once more, for `restMs`. Who takes a clean object over knows nothing of the calls that its owner completed (decision 0028): a copy of one of them
   * that is still under way would put old bytes over newer ones.
   */
  #rested(): boolean {
    const nowMs = this.#clock.monotonicMs();
    const sequence = this.#log.lastSequence;
    if (sequence !== this.#restSequence) {
      this.#restSequence = sequence;
      this.#restFromMs = nowMs;
    }
    return nowMs - this.#restFromMs >= this.#settings.restMs;
  }

  /** Whether all that was ever written is on the backend, behind a checkpoint. */
  #isStored(): boolean {
    return this.#log.idle && !this.#log.moving && this.#log.openSegmentBytes === 0 && this.#checkpointSequence === this.#object.appliedSequence;
  }

  async #becomeClean(): Promise<void> {
    const sequence = this.#object.appliedSequence;
    if (this.#protection !== 'unprotected' || !this.#isStored() || !this.#rested()) return;
    // What the registry was told lazily it may have forgotten, and nobody tells it again: so it is told in the very change that makes the record all that is asked.
    await this.#changeProtection('clean', { ...this.#object.attributes, usedBytes: this.#object.usedBytes });
    this.#attributesSequence = sequence;
  }

  /**
   * Brings everything to the backend and marks the object clean, as far as `deadlineMs` (monotonic) lets it. One that has not rested is not marked: it is this
   * router's until it is back.
   */
  async flush(deadlineMs: number): Promise<void> {
    await this.#log.seal();
    for (;;) {
      if (this.#protection === 'clean' || this.#stopped || this.#clock.monotonicMs() > deadlineMs) return;
      this.#retryAtMs = 0;
      this.kick();
      await this.#running;
      if (this.#problem !== null || (this.#isStored() && !this.#rested())) return;
      await this.#clock.sleep(1);
    }
  }

  /** No more work begins; resolves when what runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  #bucket(): string {
    return this.#names.bucket(this.#object.uuid, '');
  }

  #objectName(name: string): string {
    return this.#names.object(this.#object.uuid, '', name);
  }
}

/** Closed epochs that still matter for a recovery that begins with `nextSegment`. */
function openEpochs(epochs: readonly ClosedEpoch[], nextSegment: number): readonly ClosedEpoch[] {
  return epochs.filter((epoch) => epoch.lastSegment >= nextSegment);
}
