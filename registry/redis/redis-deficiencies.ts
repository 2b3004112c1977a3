/** How a Redis is set up, against what the docs ask for (docs/OPERATIONS.md): messages that say what to do. Nothing of it stops a router. */
import type { PrimaryState } from './generation-record.ts';
import type { RedisConnection } from './redis-connection.ts';
import { fieldsOf } from './redis-primary.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';

export interface Deficiencies {
  /** For health: acknowledged changes live in memory only. */
  readonly problem: string | null;
  readonly warnings: readonly string[];
}

/** @throws ApplianceError `registry-unavailable`. */
export async function deficienciesOf(connection: RedisConnection, state: PrimaryState, settings: RedisRegistrySettings): Promise<Deficiencies> {
  const where = `Redis at ${connection.address.host}:${connection.address.port}`;
  const found: string[] = [];
  const names = ['appendfsync', 'min-replicas-to-write'] as const;
  const answers = await connection.run(
    names.map((name) => ({ kind: 'plain', words: ['CONFIG', 'GET', name] })),
    settings.commandTimeoutMs,
  );
  const values = names.map((name, index) => {
    const answer = answers[index];
    // An ACL may forbid CONFIG: what cannot be asked is not complained about.
    return answer?.kind === 'reply' ? (fieldsOf(answer.reply).get(name) ?? null) : null;
  });
  const [fsync = null, replicasToWrite = null] = values;
  if (state.aofEnabled && fsync !== null && fsync !== 'always') {
    found.push(
      `${where} has appendfsync ${fsync}: a power loss forgets its last changes (routers bring back what they have of them); set appendfsync always`,
    );
  }
  const { replicasMin } = settings;
  if (replicasMin > 0 && replicasToWrite === '0') {
    found.push(
      `${where} has min-replicas-to-write 0: cut off from its replicas it goes on taking changes that are lost; set min-replicas-to-write ${replicasMin}`,
    );
  }
  if (replicasMin > 0 && state.connectedReplicas < replicasMin) {
    found.push(`${where} has ${state.connectedReplicas} replicas connected, but registry.redis.replicasMin is ${replicasMin}: changes wait`);
  }
  if (replicasMin > 0 && state.connectedReplicas > 2 * replicasMin) {
    found.push(
      `${where} has ${state.connectedReplicas} replicas, but registry.redis.replicasMin is ${replicasMin}, which is no majority: two primaries might confirm at once; set it to ${Math.ceil(state.connectedReplicas / 2)}`,
    );
  }
  const problem = state.aofEnabled ? null : `${where} has appendonly no: a restart forgets the namespace; set appendonly yes`;
  return { problem, warnings: found };
}
