import type { RouterRecord } from '../ports.ts';
/** Commands to one Redis process in the name of the identity that it had when it was asked: what recovery rounds (recovery-round.ts) read and write goes through here. */
import { HEX_32, integerOf, jsonOf, listOf, patternOf, recordOf } from '../record-check.ts';
import { IN_ROUND } from './generation-record.ts';
import type { VerbScript } from './lua-pieces.ts';
import { ROUTERS_SCRIPT } from './membership-scripts.ts';
import { unpackRouter } from './packed-owner.ts';
import { type RedisCommand, type RedisConnection, unavailable } from './redis-connection.ts';
import { redisKeys } from './redis-keys.ts';
import type { ScriptArgument, ScriptReply } from './redis-link.ts';
import { fieldsOf, isList, textOf } from './redis-primary.ts';
import { ENTER_ROUND, roundKeys } from './round-member-scripts.ts';
import { READ_META_SCRIPT } from './round-scripts.ts';

const MEMBERS_MAX = 10_000;

/** What a primary has of its registry. */
export interface Meta {
  readonly generation: number | typeof IN_ROUND;
  readonly identity: string;
  readonly vpoolName: string;
  readonly vpoolUuid: string;
}

/** What a router says when it has brought all that it can. */
export interface Report {
  readonly seen: number;
  readonly members: readonly string[];
  /** Changes that this router acknowledged and no longer has, from the cut up to this sequence; 0: none. */
  readonly hole: number;
}

export interface RoundState {
  /** Generation before it. */
  readonly from: number;
  /** Everything up to this sequence was in Redis when the round began. */
  readonly cut: number;
  /** The router for which it is held late; null: an ordinary one. */
  readonly late: string | null;
  readonly reports: ReadonlyMap<string, Report>;
  /** Of routers that renew their leases in the round. */
  readonly aliveAgoMs: ReadonlyMap<string, number>;
}

export interface RoundConnectionSettings {
  readonly vpoolName: string;
  readonly replicasMin: number;
  readonly commandTimeoutMs: number;
}

export class RoundConnection {
  readonly connection: RedisConnection;
  readonly identity: string;
  readonly names: ReturnType<typeof redisKeys>;
  readonly #settings: RoundConnectionSettings;

  constructor(connection: RedisConnection, identity: string, settings: RoundConnectionSettings) {
    this.connection = connection;
    this.identity = identity;
    this.names = redisKeys(settings.vpoolName);
    this.#settings = settings;
  }

  /** In a round: all that ever were. */
  async routers(): Promise<Map<string, RouterRecord>> {
    const [listed] = await this.run([this.command(ROUTERS_SCRIPT, [IN_ROUND])]);
    return new Map([...pairsOf(listed)].map(([id, packed]) => [id, unpackRouter(id, packed)]));
  }

  /** Says that this router is in the round, and reads what is known of it. @throws ApplianceError `registry-unavailable`: there is none, or the registry is gone. */
  async enter(): Promise<RoundState> {
    const where = 'recovery round';
    const [reply] = await this.run([{ kind: 'script', script: ENTER_ROUND, keys: roundKeys(this.#settings.vpoolName), args: [this.identity] }]);
    if (!isList(reply)) throw unavailable('Redis answers no recovery round');
    const reports = new Map<string, Report>();
    const aliveAgoMs = new Map<string, number>();
    const nowMs = Number(textOf(reply[2]));
    const fields = fieldsOf(reply[1] ?? null);
    if (fields.get('from') === 'void') throw unavailable('the registry is gone from Redis');
    for (const [name, value] of fields) {
      const [kind = '', id = ''] = name.split(' ');
      if (kind === 'alive') aliveAgoMs.set(id, nowMs - Number(value));
      if (kind !== 'report') continue;
      const json = recordOf(jsonOf(value, where, 'report'), where, 'report');
      reports.set(id, {
        seen: integerOf(json['seen'], 0, Number.MAX_SAFE_INTEGER, where, 'seen'),
        members: listOf(json['members'], MEMBERS_MAX, where, 'members').map((member) => patternOf(member, HEX_32, where, 'member')),
        hole: integerOf(json['hole'], 0, Number.MAX_SAFE_INTEGER, where, 'hole'),
      });
    }
    return {
      from: integerOf(Number(fields.get('from')), 0, Number.MAX_SAFE_INTEGER, where, 'from'),
      cut: integerOf(Number(textOf(reply[0])), 0, Number.MAX_SAFE_INTEGER, where, 'cut'),
      late: fields.get('late') ?? null,
      reports,
      aliveAgoMs,
    };
  }

  /** Null: there is no registry. */
  async meta(): Promise<Meta | null> {
    const [reply] = await this.run([this.command(READ_META_SCRIPT, [''])]);
    if (!isList(reply)) throw unavailable('Redis does not show the meta key');
    const [generation, identity, vpoolName, vpoolUuid] = reply.map(textOf);
    if (vpoolUuid === undefined || vpoolUuid === '') return null;
    return {
      generation: generation === IN_ROUND ? IN_ROUND : integerOf(Number(generation), 1, Number.MAX_SAFE_INTEGER, this.names.meta, 'generation'),
      identity: identity ?? '',
      vpoolName: vpoolName ?? '',
      vpoolUuid: patternOf(vpoolUuid, HEX_32, this.names.meta, 'vpool_uuid'),
    };
  }

  /** For `run`. */
  command(script: VerbScript, args: readonly ScriptArgument[]): RedisCommand {
    return { kind: 'script', script, keys: script.keys.map((key) => this.names[key]), args };
  }

  /** Replies of all commands, when `replicasMin` replicas have what they wrote. A refusal, also of the round, is for another try. */
  async run(commands: readonly RedisCommand[]): Promise<ScriptReply[]> {
    const { replicasMin, commandTimeoutMs } = this.#settings;
    const all: RedisCommand[] =
      replicasMin > 0 ? [...commands, { kind: 'plain', words: ['WAIT', replicasMin, Math.ceil(commandTimeoutMs / 2)] }] : [...commands];
    // A batch of replays is more work than one verb.
    const answers = await this.connection.run(all, (commands.length > 1 ? 2 : 1) * commandTimeoutMs);
    const replies = answers.map((answer) => {
      if (answer.kind === 'refused') throw unavailable(`Redis refuses a step of the recovery: ${answer.error.message}`, answer.error);
      return answer.reply;
    });
    if (replicasMin === 0) return replies;
    const waited = replies.pop();
    if (typeof waited !== 'number' || waited < replicasMin) {
      throw unavailable(`only ${String(waited)} of ${replicasMin} replicas of Redis confirmed a step of the recovery in time`);
    }
    return replies;
  }

  /** Of one script. */
  async confirmed(script: VerbScript, args: readonly ScriptArgument[]): Promise<ScriptReply> {
    const [reply] = await this.run([this.command(script, args)]);
    return reply ?? null;
  }
}

/** A hash's fields and binary values. */
function* pairsOf(reply: ScriptReply | undefined): Generator<[string, Buffer]> {
  if (!isList(reply)) return;
  for (let at = 0; at + 1 < reply.length; at += 2) {
    const value = reply[at + 1];
    if (Buffer.isBuffer(value)) yield [textOf(reply[at]), value];
  }
}
