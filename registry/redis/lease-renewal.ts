/** One renewal after another over a connection of its own, on whatever primary there is: in the current generation, or inside a recovery round. */
import type { Clock } from '../../server/core/time.ts';
import { CONFIRM, confirmKeyOf, IN_ROUND, inspectPrimary } from './generation-record.ts';
import type { LeaseWorkerData } from './lease-protocol.ts';
import { RENEW_SCRIPT } from './membership-scripts.ts';
import { credentialsOf, type RedisAnswer, type RedisCommand, RedisConnection, unavailable } from './redis-connection.ts';
import { redisKeys } from './redis-keys.ts';
import { findPrimary, isList } from './redis-primary.ts';
import { RENEW_IN_ROUND, roundKeys } from './round-member-scripts.ts';
import { BEGIN_ROUND_SCRIPT } from './round-scripts.ts';

export class LeaseRenewal {
  readonly #clock: Clock;
  readonly #data: LeaseWorkerData;
  readonly #onIdentity: (identity: string) => void;
  #connection: { readonly redis: RedisConnection; readonly identity: string } | null = null;

  /** `onIdentity` is told on which primary it renews from now on. */
  constructor(clock: Clock, data: LeaseWorkerData, onIdentity: (identity: string) => void) {
    this.#clock = clock;
    this.#data = data;
    this.#onIdentity = onIdentity;
  }

  /** Resolves when the renewal is confirmed (WAIT), or the incarnation is dead for good. @throws ApplianceError `registry-unavailable`: outcome unknown. */
  async renew(generation: number): Promise<'renewed' | 'dead'> {
    try {
      if (this.#connection?.redis.ended === true) this.#connection = null;
      const connection = (this.#connection ??= await this.#connect());
      const { router, incarnation, vpoolName } = this.#data;
      const answer = await this.#inGeneration(generation);
      if (answer.kind === 'reply') return this.#statusOf(answer);
      if (answer.code !== 'GENERATION') throw unavailable(`Redis refuses a renewal: ${answer.error.message}`);
      const found = Number(answer.error.message.split(' ')[1]);
      if (found > generation) {
        // A round is over, and the main thread does not know yet. Whoever is alive there may renew; who is not listed may only have missed the round.
        const ahead = await this.#inGeneration(found);
        if (ahead.kind === 'reply' && this.#statusOf(ahead) === 'renewed') return 'renewed';
        throw unavailable(`Redis is in generation ${found}, and this router is not yet`);
      }
      const inRound = await this.#confirmed({
        kind: 'script',
        script: RENEW_IN_ROUND,
        keys: roundKeys(vpoolName),
        args: [connection.identity, router, incarnation],
      });
      if (inRound.kind === 'reply') return this.#statusOf(inRound);
      throw unavailable(`Redis refuses a renewal: ${inRound.error.message}`);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    this.#connection?.redis.close();
    this.#connection = null;
  }

  #inGeneration(generation: number): Promise<RedisAnswer> {
    const { router, incarnation, vpoolName } = this.#data;
    const names = redisKeys(vpoolName);
    return this.#confirmed(
      { kind: 'script', script: RENEW_SCRIPT, keys: RENEW_SCRIPT.keys.map((key) => names[key]), args: [generation, router, incarnation] },
      { kind: 'script', script: CONFIRM, keys: [names.meta, confirmKeyOf(vpoolName)], args: [generation] },
    );
  }

  /** Answer of the first command; the last one is a write that the WAIT behind it is for. */
  async #confirmed(...commands: RedisCommand[]): Promise<RedisAnswer> {
    const { replicasMin, commandTimeoutMs } = this.#data.redis;
    const connection = this.#connection?.redis;
    if (connection === undefined) throw unavailable('no connection to Redis');
    const answers = await connection.run(
      replicasMin > 0 ? [...commands, { kind: 'plain', words: ['WAIT', replicasMin, Math.ceil(commandTimeoutMs / 2)] }] : commands,
      commandTimeoutMs,
    );
    const [first] = answers;
    if (first === undefined) throw unavailable('Redis answered nothing');
    if (first.kind === 'refused') return first;
    const second = commands.length > 1 ? answers[1] : first;
    if (second?.kind === 'refused') return second;
    const waited = answers.at(-1);
    if (replicasMin > 0 && (waited?.kind !== 'reply' || typeof waited.reply !== 'number' || waited.reply < replicasMin)) {
      throw unavailable('too few replicas of Redis confirmed a renewal in time');
    }
    return first;
  }

  #statusOf(answer: RedisAnswer): 'renewed' | 'dead' {
    const status = answer.kind === 'reply' && isList(answer.reply) ? answer.reply[0] : null;
    if (status === 0) return 'renewed';
    if (status === 1) return 'dead';
    throw unavailable('Redis answered a renewal with something else');
  }

  async #connect(): Promise<{ redis: RedisConnection; identity: string }> {
    const { redis: settings, vpoolName } = this.#data;
    const primary = await findPrimary(settings, redisKeys(vpoolName).meta, this.#clock);
    const redis = await RedisConnection.open(primary.address, settings, {
      clock: this.#clock,
      credentials: credentialsOf(settings),
      name: 'vferry-lease',
    });
    try {
      const state = await inspectPrimary(redis, redisKeys(vpoolName).meta, settings.commandTimeoutMs);
      // Data of another identity may be older than what was acknowledged: only a round may use them, and renews there. It begins now if it has not yet.
      if (state.record !== null && (state.record.generation === IN_ROUND || state.record.identity !== state.identity)) {
        const names = redisKeys(vpoolName);
        const keys = BEGIN_ROUND_SCRIPT.keys.map((key) => names[key]);
        const begun = await redis.run([{ kind: 'script', script: BEGIN_ROUND_SCRIPT, keys, args: ['', state.identity] }], settings.commandTimeoutMs);
        if (begun[0]?.kind !== 'reply') throw unavailable('Redis refuses to begin a recovery round');
      }
      this.#onIdentity(state.identity);
      return { redis, identity: state.identity };
    } catch (error) {
      redis.close();
      throw error;
    }
  }
}
