/** Finds the Redis that takes changes of a vPool now: the one of the settings, the one that Sentinels name, or the Cluster node of the vPool's slot. */
import { ApplianceError } from '../../server/core/errors.ts';
import type { Clock } from '../../server/core/time.ts';
import { addressOf, credentialsOf, type RedisAddress, type RedisAnswer, RedisConnection, unavailable } from './redis-connection.ts';
import type { ScriptReply } from './redis-link.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';

/** Without Sentinel nobody promotes another one behind our back; reads are still confirmed by a write now and then. */
const STANDALONE_DOWN_AFTER_MS = 4_000;

export interface Primary {
  readonly address: RedisAddress;
  /** Nobody else is made primary before this one was silent for so long. */
  readonly downAfterMs: number;
}

/** @throws ApplianceError `registry-unavailable`. */
export async function findPrimary(settings: RedisRegistrySettings, metaKey: string, clock: Clock): Promise<Primary> {
  const [first] = settings.urls;
  if (first === undefined) throw new ApplianceError('registry-unavailable', 'registry.redis.urls is empty');
  switch (settings.mode) {
    case 'standalone':
      return { address: addressOf(first), downAfterMs: STANDALONE_DOWN_AFTER_MS };
    case 'sentinel':
      return primaryOfSentinels(settings, clock);
    case 'cluster':
      return primaryOfSlot(settings, metaKey, clock);
  }
}

/** Asks one node of the settings and closes. */
async function ask(
  url: string,
  settings: RedisRegistrySettings,
  clock: Clock,
  sentinel: boolean,
  commands: readonly (readonly [string, ...string[]])[],
): Promise<RedisAnswer[]> {
  const credentials = sentinel ? { username: null, password: settings.sentinelPassword } : credentialsOf(settings);
  const connection = await RedisConnection.open(addressOf(url), settings, { clock, credentials, name: 'vferry-discovery' });
  try {
    return await connection.run(
      commands.map((words) => ({ kind: 'plain', words })),
      settings.commandTimeoutMs,
    );
  } finally {
    connection.close();
  }
}

/** All are asked at once: one that was cut off names a former primary, and has an older configuration epoch. */
async function primaryOfSentinels(settings: RedisRegistrySettings, clock: Clock): Promise<Primary> {
  const name = settings.sentinelName ?? '';
  const failures: unknown[] = [];
  let best: (Primary & { readonly epoch: number }) | null = null;
  await Promise.all(
    settings.urls.map(async (url) => {
      try {
        // The address of the first is the former primary's until all replicas are reconfigured; that of the second is the new one as soon as it was promoted.
        const [answer, named] = await ask(url, settings, clock, true, [
          ['SENTINEL', 'MASTER', name],
          ['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name],
        ]);
        if (answer?.kind !== 'reply' || named?.kind !== 'reply' || !isList(named.reply)) {
          failures.push(answer?.kind === 'refused' ? answer.error : new Error(`Sentinel ${url} knows no ${name}`));
          return;
        }
        const fields = fieldsOf(answer.reply);
        const address = { host: textOf(named.reply[0]), port: Number(textOf(named.reply[1])) };
        const epoch = Number(fields.get('config-epoch'));
        const downAfterMs = Number(fields.get('down-after-milliseconds'));
        if (address.host === '' || !isPort(address.port) || !(downAfterMs > 0)) failures.push(new Error(`Sentinel ${url} answers no address`));
        else if (best === null || epoch > best.epoch) best = { address, downAfterMs, epoch };
      } catch (error) {
        failures.push(error);
      }
    }),
  );
  if (best !== null) return best;
  const reason = failures.find((failure) => failure instanceof Error);
  throw unavailable(`no Sentinel names a primary "${name}": ${reason instanceof Error ? reason.message : 'none answered'}`, reason);
}

async function primaryOfSlot(settings: RedisRegistrySettings, metaKey: string, clock: Clock): Promise<Primary> {
  let reason: unknown = new Error('none answered');
  for (const url of settings.urls) {
    try {
      const [slotAnswer, mapAnswer, timeoutAnswer] = await ask(url, settings, clock, false, [
        ['CLUSTER', 'KEYSLOT', metaKey],
        ['CLUSTER', 'SLOTS'],
        ['CONFIG', 'GET', 'cluster-node-timeout'],
      ]);
      if (slotAnswer?.kind === 'refused') throw slotAnswer.error;
      if (mapAnswer?.kind === 'refused') throw mapAnswer.error;
      const slot = slotAnswer?.reply;
      const ranges = mapAnswer?.reply;
      if (typeof slot !== 'number' || !isList(ranges)) throw new Error(`${url} answers no map of slots`);
      const configured = timeoutAnswer?.kind === 'reply' ? Number(fieldsOf(timeoutAnswer.reply).get('cluster-node-timeout')) : Number.NaN;
      for (const range of ranges) {
        if (!isList(range) || typeof range[0] !== 'number' || typeof range[1] !== 'number' || slot < range[0] || slot > range[1]) continue;
        const node = range[2];
        if (!isList(node)) continue;
        const host = textOf(node[0]);
        const port = Number(node[1]);
        if (!isPort(port)) continue;
        const address = { host: host === '' || host === '?' ? addressOf(url).host : host, port };
        return { address, downAfterMs: configured > 0 ? configured : STANDALONE_DOWN_AFTER_MS };
      }
      throw new Error(`no node of the Cluster serves slot ${slot}`);
    } catch (error) {
      reason = error;
    }
  }
  throw unavailable(`no node of the Redis Cluster tells who serves this vPool: ${reason instanceof Error ? reason.message : String(reason)}`, reason);
}

/** A flat list of names and values. */
export function fieldsOf(reply: ScriptReply): Map<string, string> {
  const fields = new Map<string, string>();
  if (isList(reply)) for (let at = 0; at + 1 < reply.length; at += 2) fields.set(textOf(reply[at]), textOf(reply[at + 1]));
  return fields;
}

export function isList(reply: ScriptReply | undefined): reply is readonly ScriptReply[] {
  return Array.isArray(reply);
}

export function textOf(reply: ScriptReply | undefined): string {
  return Buffer.isBuffer(reply) ? reply.toString() : typeof reply === 'number' ? String(reply) : '';
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port < 65_536;
}
