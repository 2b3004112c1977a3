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

/** All are asked at once: one that was cut off, or stood still, names a former primary, and knows an older configuration epoch. */
async function primaryOfSlot(settings: RedisRegistrySettings, metaKey: string, clock: Clock): Promise<Primary> {
  const failures: unknown[] = [];
  let best: (Primary & { readonly epoch: number }) | null = null;
  await Promise.all(
    settings.urls.map(async (url) => {
      try {
        const answers = await ask(url, settings, clock, false, [
          ['CLUSTER', 'KEYSLOT', metaKey],
          ['CLUSTER', 'SLOTS'],
          ['CLUSTER', 'NODES'],
          ['CONFIG', 'GET', 'cluster-node-timeout'],
        ]);
        const seen = primarySeen(answers, addressOf(url).host);
        if (best === null || seen.epoch > best.epoch) best = seen;
      } catch (error) {
        failures.push(error);
      }
    }),
  );
  if (best !== null) return best;
  const reason = failures.find((failure) => failure instanceof Error);
  throw unavailable(
    `no node of the Redis Cluster tells who serves this vPool: ${reason instanceof Error ? reason.message : 'none answered'}`,
    reason,
  );
}

/** What one node says of the slot. @throws Error when it says nothing of use. */
function primarySeen(answers: readonly RedisAnswer[], askedHost: string): Primary & { readonly epoch: number } {
  const [slotAnswer, mapAnswer, nodesAnswer, timeoutAnswer] = answers;
  if (slotAnswer?.kind !== 'reply' || mapAnswer?.kind !== 'reply' || nodesAnswer?.kind !== 'reply') {
    throw answers.find((answer) => answer.kind === 'refused')?.error ?? new Error(`${askedHost} answered too little`);
  }
  const slot = slotAnswer.reply;
  const ranges = mapAnswer.reply;
  if (typeof slot !== 'number' || !isList(ranges)) throw new Error(`${askedHost} answers no map of slots`);
  // An ACL may forbid CONFIG.
  const configured = timeoutAnswer?.kind === 'reply' ? Number(fieldsOf(timeoutAnswer.reply).get('cluster-node-timeout')) : Number.NaN;
  for (const range of ranges) {
    if (!isList(range) || typeof range[0] !== 'number' || typeof range[1] !== 'number' || slot < range[0] || slot > range[1]) continue;
    const node = range[2];
    if (!isList(node)) continue;
    const host = textOf(node[0]);
    const port = Number(node[1]);
    const epoch = epochOf(textOf(nodesAnswer.reply), textOf(node[2]));
    if (!isPort(port) || epoch === null) continue;
    const address = { host: host === '' || host === '?' ? askedHost : host, port };
    return { address, downAfterMs: configured > 0 ? configured : STANDALONE_DOWN_AFTER_MS, epoch };
  }
  throw new Error(`no node of the Cluster serves slot ${slot}`);
}

/** The configuration epoch of a node: `<id> <address> <flags> <its primary> <ping> <pong> <epoch> ...` of `CLUSTER NODES`. */
function epochOf(nodes: string, id: string): number | null {
  for (const line of nodes.split('\n')) {
    const words = line.split(' ');
    const epoch = Number(words[6]);
    if (words[0] === id && id !== '' && Number.isSafeInteger(epoch) && epoch >= 0) return epoch;
  }
  return null;
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
