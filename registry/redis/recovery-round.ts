/**
 * Decides what the data of a primary are worth, and makes them whole (design section 5 [!], docs/decisions/0021): the data of one generation live on one primary process.
 * On another one they are a prefix of what was acknowledged; every router that may be alive brings what it acknowledged itself behind that prefix, asserts what it serves, and then a new
 * generation begins.
 */
import type { RegistryObserver } from '../../server/core/cluster-observer.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId } from '../../server/core/ids.ts';
import type { Logger } from '../../server/core/logger.ts';
import { type Clock, timestampOf } from '../../server/core/time.ts';
import { decodeAfterImage } from '../after-image.ts';
import { decodeOutcome, isVerb } from '../outcome-codec.ts';
import type { OutboxEntry, OwnerRecord, RouterRecord } from '../ports.ts';
import type { SeenGeneration } from './generation-file.ts';
import { IN_ROUND, type PrimaryState } from './generation-record.ts';
import { LEASE_MARGIN_MS } from './lease-protocol.ts';
import { endedRounds, isSame, missingAbove, type Settled, type TakenPart } from './lineage.ts';
import { JOIN_SCRIPT } from './membership-scripts.ts';
import { addTouched, mendEntries, type Mender, type MendSource } from './mend-round.ts';
import type { OutboxLog } from './outbox-log.ts';
import { packChanges, packOutcome } from './packed-outcome.ts';
import { packOwner, packRouterDetails } from './packed-owner.ts';
import { type RedisConnection, unavailable } from './redis-connection.ts';
import type { Settler } from './redis-link-live.ts';
import type { ScriptArgument, ScriptReply } from './redis-link.ts';
import { fieldsOf, isList, textOf } from './redis-primary.ts';
import { type Report, RoundConnection } from './round-connection.ts';
import { BEGIN_LATE_ROUND, ENTER_ROUND, REPORT_IN_ROUND, roundKeys } from './round-member-scripts.ts';
import { ASSERT_OWNER_SCRIPT, BEGIN_ROUND_SCRIPT, CREATE_VPOOL_SCRIPT, FINISH_ROUND_SCRIPT, REPLAY_ENTRY_SCRIPT } from './round-scripts.ts';

const POLL_MS = 100;
const VOID_POLL_MS = 500;
const ENTRIES_PER_BATCH = 100;

/** What this router knows by itself. `seen` null: it never was in this registry. */
export interface LocalKnowledge {
  readonly seen: Pick<SeenGeneration, 'vpoolUuid' | 'generation' | 'settled'> | null;
  /** Makes it durable that this router works in this generation, the highest that it has seen, and that all that it acknowledged is there. */
  settled(vpoolUuid: string, now: Settled): Promise<void>;
  readonly log: OutboxLog;
  readonly owned: () => readonly OwnerRecord[];
  /** This router's record, once it joined and while its lease is valid: asserted in a round. */
  readonly self: () => RouterRecord | null;
  /** Routers that this one knows of and that are not dead: a round waits for their reports. */
  readonly members: () => readonly string[];
}

export interface RoundSettings {
  readonly vpoolName: string;
  readonly router: string;
  readonly replicasMin: number;
  readonly commandTimeoutMs: number;
  readonly leaseMs: number;
  readonly whenEmpty: 'create' | 'refuse';
}

export class RecoveryRounds implements Settler {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #local: LocalKnowledge;
  readonly #settings: RoundSettings;
  readonly #createArguments: (identity: string) => readonly ScriptArgument[];
  readonly #observer: RegistryObserver | null;
  #problem: string | null = null;
  /** The last round that this router reported in, as long as the process lives. */
  #takenPart: TakenPart | null = null;
  /** Rounds that this router took part in, and entries that it brought back in them. */
  readonly counts = { rounds: 0, replayed: 0 };

  /** `createArguments`: of CREATE_VPOOL_SCRIPT from ARGV[2] on, newly drawn. */
  constructor(
    components: {
      clock: Clock;
      logger: Logger;
      observer: RegistryObserver | null;
      local: LocalKnowledge;
      createArguments: (identity: string) => readonly ScriptArgument[];
    },
    settings: RoundSettings,
  ) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#local = components.local;
    this.#createArguments = components.createArguments;
    this.#observer = components.observer;
    this.#settings = settings;
  }

  get problem(): string | null {
    return this.#problem;
  }

  async settle(connection: RedisConnection, state: PrimaryState): Promise<number> {
    const redis = new RoundConnection(connection, state.identity, this.#settings);
    const { identity } = state;
    if (!['noeviction', ''].includes(state.maxmemoryPolicy)) {
      throw new ApplianceError(
        'registry-unfit',
        `Redis at ${connection.address.host}:${connection.address.port} has maxmemory-policy ${state.maxmemoryPolicy}: it would throw the namespace away when memory gets short; set it to noeviction`,
      );
    }
    for (;;) {
      const meta = await redis.meta();
      const { seen } = this.#local;
      if (meta === null) {
        if (seen !== null) await this.#sitOutVoid(redis);
        else await this.#create(redis);
        continue;
      }
      if (meta.vpoolName !== this.#settings.vpoolName || (seen !== null && seen.vpoolUuid !== meta.vpoolUuid)) {
        this.#problem = `this Redis has another registry of the name ${this.#settings.vpoolName} (vPool ${meta.vpoolUuid}); this router belongs to vPool ${seen?.vpoolUuid ?? '?'}: it must have been made anew after the data were lost; restore the append-only file of the former one`;
        throw new ApplianceError('registry-foreign', this.#problem, { retryable: true });
      }
      if (meta.generation === IN_ROUND || meta.identity !== identity) {
        await this.#takePart(redis);
        continue;
      }
      const present = { generation: meta.generation, identity };
      if (seen !== null && (await this.#missed(redis, present, seen.settled))) continue;
      const newest = seen?.settled.at(-1);
      if (newest?.generation !== present.generation || newest.identity !== identity) {
        await this.#assertOwn(redis, meta.generation);
        await this.#local.settled(meta.vpoolUuid, present);
      }
      this.#problem = null;
      return meta.generation;
    }
  }

  async #create(redis: RoundConnection): Promise<void> {
    const { vpoolName, whenEmpty } = this.#settings;
    if (whenEmpty === 'refuse') {
      throw new ApplianceError(
        'registry-void',
        `there is no vPool ${vpoolName} in Redis at ${redis.connection.address.host}:${redis.connection.address.port}; if it was there before, restore its append-only file`,
      );
    }
    const [from] = await redis.run([{ kind: 'plain', words: ['HGET', redis.names.round, 'from'] }]);
    if (from !== null) {
      throw new ApplianceError('registry-void', `Redis has lost vPool ${vpoolName}, and other routers wait for it: restore its append-only file`);
    }
    const reply = await redis.confirmed(CREATE_VPOOL_SCRIPT, ['', ...this.#createArguments(redis.identity)]);
    const kind = textOf(reply);
    if (kind === 'remains') {
      throw new ApplianceError(
        'registry-corrupt',
        `Redis has keys of vPool ${vpoolName}, but not vf:{${vpoolName}}:meta; restore its append-only file`,
      );
    }
    if (kind === 'created') this.#logger.info({ vpool: vpoolName }, 'the registry was made');
  }

  /**
   * The registry is gone, and nothing proves that the logs of the routers hold all of it: nothing is made up. Leases go on (round-member-scripts.ts), so what is owned is
   * served; nobody can claim anything meanwhile.
   */
  async #sitOutVoid(redis: RoundConnection): Promise<void> {
    const { vpoolName } = this.#settings;
    const problem = `Redis at ${redis.connection.address.host}:${redis.connection.address.port} has no registry of vPool ${vpoolName} any more; open volumes go on, the namespace waits: restore the append-only file of Redis`;
    if (this.#problem === null) this.#logger.error({ vpool: vpoolName }, problem);
    this.#problem = problem;
    while ((await redis.meta()) === null) {
      await redis.run([{ kind: 'script', script: ENTER_ROUND, keys: roundKeys(vpoolName), args: [redis.identity] }]).catch((error: unknown) => {
        if (!(error instanceof ApplianceError)) throw error;
        // It is there again: seen in the next turn of the loop.
        if (redis.connection.ended) throw error;
      });
      await this.#clock.sleep(VOID_POLL_MS);
    }
  }

  /**
   * Rounds that ended without this router, while it was away: if its log has changes that they should have got, one more round is held for them. Resolves with true when
   * the meta key is to be read again.
   */
  async #missed(redis: RoundConnection, present: Settled & { readonly identity: string }, settled: readonly Settled[]): Promise<boolean> {
    const { vpoolName, router } = this.#settings;
    const { generation, identity } = present;
    const newest = settled.at(-1);
    if (newest !== undefined && isSame(newest, present)) return false;
    const [, , key = ''] = roundKeys(vpoolName);
    const [reply] = await redis.run([{ kind: 'plain', words: ['HGETALL', key] }]);
    const cut = missingAbove(endedRounds(fieldsOf(reply ?? null), key), present, settled, this.#takenPart);
    const entries = cut === Infinity ? [] : await this.#local.log.entriesAfter(cut, 1);
    // A registry that went on from older data without this router has to come above what was seen, whatever the log has.
    const isBehind = newest !== undefined && generation <= newest.generation;
    if (!isBehind && entries.length === 0) return false;
    this.#logger.warn(
      { vpool: vpoolName, generation, seen: newest?.generation, cut },
      'a recovery round ended without this router; another one for what it has',
    );
    const args = [identity, generation, cut === Infinity ? Number.MAX_SAFE_INTEGER : cut, router];
    await redis.run([{ kind: 'script', script: BEGIN_LATE_ROUND, keys: roundKeys(vpoolName), args }]);
    return true;
  }

  async #takePart(redis: RoundConnection): Promise<void> {
    const { log } = this.#local;
    const { vpoolName, router } = this.#settings;
    const begun = await redis.confirmed(BEGIN_ROUND_SCRIPT, ['', redis.identity]);
    if (!isList(begun) || textOf(begun[0]) !== 'round') return;
    this.counts.rounds += 1;
    const startedAtMs = this.#clock.monotonicMs();
    const { from, cut, late } = await redis.enter();
    this.#logger.warn(
      { vpool: vpoolName, generation: from, cut },
      late === null ? 'Redis was restarted, promoted or restored: recovery round' : 'recovery round',
    );
    const hole = log.dropped > cut ? log.dropped : 0;
    if (late === router) {
      const touched = await this.#replayLate(redis, cut, startedAtMs);
      await this.#mend(redis, { generation: from, now: timestampOf(this.#clock.wallMs()), touched });
    }
    if (late !== router && hole === 0) await this.#replay(redis, cut);
    await this.#assertOwn(redis, IN_ROUND);
    const report: Report = { seen: this.#local.seen?.generation ?? 0, members: this.#local.members(), hole };
    const args = [redis.identity, router, JSON.stringify(report), from];
    await redis.run([{ kind: 'script', script: REPORT_IN_ROUND, keys: roundKeys(vpoolName), args }]);
    // Of its own late round it is through with all from the cut on, also where that cannot be brought back. Whoever has a hole brought nothing.
    if (late === router || hole === 0) this.#takenPart = { identity: redis.identity, from, cut };
    for (;;) {
      const meta = await redis.meta();
      if (meta === null || meta.generation !== IN_ROUND) return;
      const verdict = await this.#verdict(redis, startedAtMs).catch(async (error: unknown) => {
        // Another router may have ended it since: taken for a failure, all would be done once more, in a late round for what is there.
        const now = await redis.meta();
        if (now === null || now.generation === IN_ROUND) throw error;
        return null;
      });
      if (verdict === null) continue;
      if (verdict.kind === 'finish') {
        if (!(await this.#finish(redis, verdict.generationMin))) continue;
        this.#observer?.recoveryRound(this.#clock.monotonicMs() - startedAtMs);
        return;
      }
      if (verdict.kind === 'hole' && this.#problem === null) this.#logger.error({ vpool: vpoolName }, verdict.problem);
      this.#problem = verdict.kind === 'hole' ? verdict.problem : null;
      await this.#clock.sleep(verdict.kind === 'hole' ? VOID_POLL_MS : POLL_MS);
    }
  }

  /**
   * Changes from before a round that ended without this router. What others changed since then must be known first, removals above all: else a name that was removed would
   * come back. So all routers that ever were must have reported, with logs that reach back that far. Resolves with the directories whose names changed.
   */
  async #replayLate(redis: RoundConnection, cut: number, startedAtMs: number): Promise<ReadonlySet<FileId>> {
    const { router, leaseMs } = this.#settings;
    const { log } = this.#local;
    for (;;) {
      const { reports } = await redis.enter();
      const routers = await redis.routers();
      const missing = [...routers.keys()].filter((id) => id !== router && !reports.has(id));
      const hole = log.dropped > cut || [...reports.values()].some((report) => report.hole > 0);
      if (missing.length === 0 && !hole) return this.#replay(redis, cut);
      if (hole || this.#clock.monotonicMs() - startedAtMs > leaseMs) {
        const lost = await log.entriesAfter(cut, ENTRIES_PER_BATCH);
        this.#logger.error(
          { missing, changes: lost.length, first: lost[0]?.sequence, verbs: lost.slice(0, 20).map((entry) => entry.verb) },
          'changes that this router acknowledged before Redis forgot them cannot be brought back: what others changed since is not known; they are in its outbox log and on the backend',
        );
        return new Set();
      }
      await this.#clock.sleep(POLL_MS);
    }
  }

  /** Resolves with the directories in which names came or went. */
  async #replay(redis: RoundConnection, cut: number): Promise<ReadonlySet<FileId>> {
    const { log } = this.#local;
    const touched = new Set<FileId>();
    let brought = 0;
    for (let after = cut; ;) {
      const entries = await log.entriesAfter(after, ENTRIES_PER_BATCH);
      const last = entries.at(-1);
      if (last === undefined) break;
      after = last.sequence;
      const commands = entries.map((entry) => redis.command(REPLAY_ENTRY_SCRIPT, replayArguments(entry, redis.identity, this.#clock.wallMs())));
      for (const [index, reply] of (await redis.run(commands)).entries()) {
        if (typeof reply !== 'number' || reply === 0) continue;
        brought += 1;
        addTouched(touched, entries[index] as OutboxEntry);
      }
    }
    this.counts.replayed += brought;
    if (brought > 0) this.#logger.warn({ entries: brought }, 'changes that Redis had forgotten were brought back');
    return touched;
  }

  /** What was brought back late, by this router or another, was done without knowing what others did since: names and what counts them are made to fit. */
  async #mend(redis: RoundConnection, mender: Mender): Promise<void> {
    const { log } = this.#local;
    const source: MendSource = {
      run: (script, all) => redis.run(all.map((args) => redis.command(script, args))),
      inodes: async (fileids) => {
        const [reply] = await redis.run([{ kind: 'plain', words: ['HMGET', redis.names.inodes, ...fileids] }]);
        return isList(reply ?? null) ? (reply as readonly ScriptReply[]).map((one) => (Buffer.isBuffer(one) ? one : null)) : [];
      },
    };
    const { after, entries, told } = await mendEntries(source, mender);
    if (entries.length === 0) return;
    // Into the log first: what Redis forgets of it comes back like any other change.
    for (const entry of entries) await log.append(entry);
    await this.#replay(redis, after);
    this.#logger.warn(
      { vpool: this.#settings.vpoolName, changes: entries.length, told: told.slice(0, 100) },
      'what routers had done without each other was put together',
    );
  }

  /** What this router is and serves. Its lease holds: nobody else can have claimed any of it. */
  async #assertOwn(redis: RoundConnection, generation: number | typeof IN_ROUND): Promise<void> {
    const self = this.#local.self();
    if (self === null) return;
    const joined = await redis.run([
      redis.command(JOIN_SCRIPT, [generation, self.id, self.incarnation, packRouterDetails(self.addresses, self.version)]),
    ]);
    const status = isList(joined[0]) ? joined[0][0] : null;
    // Dead there: the lease's thread finds out by itself.
    if (status !== 0) return;
    const owned = this.#local.owned();
    for (let from = 0; from < owned.length; from += ENTRIES_PER_BATCH) {
      const commands = owned
        .slice(from, from + ENTRIES_PER_BATCH)
        .map((owner) => redis.command(ASSERT_OWNER_SCRIPT, [generation, redis.identity, packOwner({ owner, counterMax: owner.term.counter }, 0)]));
      await redis.run(commands);
    }
  }

  async #verdict(
    redis: RoundConnection,
    startedAtMs: number,
  ): Promise<{ kind: 'wait' } | { kind: 'hole'; problem: string } | { kind: 'finish'; generationMin: number }> {
    const { leaseMs, router, vpoolName } = this.#settings;
    const { reports, aliveAgoMs, late } = await redis.enter();
    // Another failover in between: everything once more.
    if (!reports.has(router)) throw unavailable('the recovery round began anew');
    const required = new Set<string>(late === null ? [] : [late]);
    for (const [id, record] of await redis.routers()) if (!record.dead) required.add(id);
    let generationMin = 1;
    for (const [id, report] of reports) {
      generationMin = Math.max(generationMin, report.seen + 1);
      for (const member of report.members) required.add(member);
      if (report.hole > 0 && late === null) {
        return {
          kind: 'hole',
          problem: `Redis lost more of vPool ${vpoolName} than the routers can bring back (router ${id} has its changes from ${report.hole} on only); open volumes go on, the namespace waits: restore a newer append-only file of Redis`,
        };
      }
    }
    const missing = [...required].filter((id) => !reports.has(id));
    if (missing.length === 0) return { kind: 'finish', generationMin };
    const patienceMs = leaseMs + LEASE_MARGIN_MS;
    if (this.#clock.monotonicMs() - startedAtMs < patienceMs) return { kind: 'wait' };
    // Whoever renews its lease here still lives, and will report.
    if (missing.some((id) => (aliveAgoMs.get(id) ?? Infinity) < patienceMs)) return { kind: 'wait' };
    this.#logger.warn({ missing }, 'the recovery round ends without routers that did not report in the time of a lease');
    return { kind: 'finish', generationMin };
  }

  /** False: another router has ended it, and another round may be under way. */
  async #finish(redis: RoundConnection, generationMin: number): Promise<boolean> {
    const { vpoolName } = this.#settings;
    const finished = await redis.confirmed(FINISH_ROUND_SCRIPT, ['', redis.identity, generationMin]);
    if (!isList(finished) || textOf(finished[0]) !== 'done') return false;
    this.#logger.warn({ vpool: vpoolName }, 'the recovery round is over');
    return true;
  }
}

function replayArguments(entry: OutboxEntry, identity: string, wallMs: number): ScriptArgument[] {
  const where = `outbox entry ${entry.sequence}`;
  const { operationId, verb, outcome } = entry;
  const remembered = operationId !== null && outcome !== null && isVerb(verb);
  return [
    '',
    identity,
    entry.sequence,
    packChanges(decodeAfterImage(entry.afterImage, where), entry.sequence),
    remembered ? `${verb} ${operationId}` : '',
    remembered ? packOutcome(verb, decodeOutcome(verb, outcome, where)) : '',
    Math.floor(wallMs),
    entry.generation,
  ];
}
