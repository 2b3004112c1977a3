/**
 * The generation record of a vPool in Redis: fields `generation` and `identity` of the meta key (docs/formats/redis.md). `identity` is run id and replication
 * id of the primary that the generation lives on: after a restart, a failover or a restored append-only file it is another one, and then nothing may be done
 * with the registry but a recovery round. Redis cannot be asked for its run id from a script at a fair price, so every connection asks once when it is made: none
 * of the two changes under a connection that lives, except for a replica's sake, and that does no harm.
 */
import { type RedisConnection, unavailable } from './redis-connection.ts';
import type { LuaScript } from './redis-link.ts';
import { isList, textOf } from './redis-primary.ts';

/** What `generation` says while a recovery round runs. Scripts that are meant for a round are sent with it in place of a number. */
export const IN_ROUND = 'round';

export interface GenerationRecord {
  readonly generation: number | typeof IN_ROUND;
  readonly identity: string;
  readonly vpoolUuid: string;
  readonly sequence: number;
}

/** A primary as it was when the connection was made. */
export interface PrimaryState {
  readonly identity: string;
  readonly connectedReplicas: number;
  readonly maxmemoryPolicy: string;
  readonly aofEnabled: boolean;
  /** null: this Redis has no such vPool. */
  readonly record: GenerationRecord | null;
}

/** @throws ApplianceError `registry-unavailable`, also when it is no primary or loads its data still. */
export async function inspectPrimary(connection: RedisConnection, metaKey: string, timeoutMs: number): Promise<PrimaryState> {
  const answers = await connection.run(
    [
      { kind: 'plain', words: ['INFO', 'server'] },
      { kind: 'plain', words: ['INFO', 'replication'] },
      { kind: 'plain', words: ['INFO', 'memory'] },
      { kind: 'plain', words: ['INFO', 'persistence'] },
      { kind: 'plain', words: ['HMGET', metaKey, 'generation', 'identity', 'vpool_uuid', 'sequence'] },
    ],
    timeoutMs,
  );
  const where = `Redis at ${connection.address.host}:${connection.address.port}`;
  const texts: string[] = [];
  for (const answer of answers.slice(0, 4)) {
    if (answer.kind === 'refused') throw unavailable(`${where} refuses INFO: ${answer.error.message}`);
    texts.push(textOf(answer.reply));
  }
  const info = new Map<string, string>();
  for (const line of texts.join('\r\n').split('\r\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) info.set(line.slice(0, colon), line.slice(colon + 1));
  }
  if (info.get('loading') === '1') throw unavailable(`${where} is still loading its data`);
  if (info.get('role') !== 'master') throw unavailable(`${where} is not the primary (any more)`);
  const runId = info.get('run_id') ?? '';
  const replicationId = info.get('master_replid') ?? '';
  if (runId === '' || replicationId === '') throw unavailable(`${where} tells no run id`);
  const fields = answers[4];
  if (fields === undefined || fields.kind === 'refused' || !isList(fields.reply)) {
    throw unavailable(`${where} does not show ${metaKey}: ${fields?.kind === 'refused' ? fields.error.message : 'no list'}`);
  }
  const [generation, identity, vpoolUuid, sequence] = fields.reply;
  return {
    identity: `${runId}:${replicationId}`,
    connectedReplicas: Number(info.get('connected_slaves') ?? 0),
    maxmemoryPolicy: info.get('maxmemory_policy') ?? '',
    aofEnabled: info.get('aof_enabled') === '1',
    record:
      vpoolUuid === null
        ? null
        : {
            generation: textOf(generation) === IN_ROUND ? IN_ROUND : Number(textOf(generation)),
            identity: textOf(identity),
            vpoolUuid: textOf(vpoolUuid),
            sequence: Number(textOf(sequence)),
          },
  };
}

/**
 * A write that proves that this primary is one still, together with the WAIT behind it. KEYS: meta, confirm. ARGV: generation.
 * Counts in a key of its own so that it disturbs nothing.
 */
export const CONFIRM: LuaScript = {
  name: 'confirm',
  source: `
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return redis.error_reply('GENERATION is another one') end
return redis.call('INCR', KEYS[2])
`,
};

export function confirmKeyOf(vpoolName: string): string {
  return `vf:{${vpoolName}}:confirm`;
}
