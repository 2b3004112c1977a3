/** A link that only runs scripts: no WAIT, no failover, no round. For tests of the verbs. */
import { Redis } from 'ioredis';

import type { OutboxEntry } from '../../ports.ts';
import type { EntryOf, LuaScript, RedisLink, ScriptArgument, ScriptReply } from '../redis-link.ts';

export class PlainLink implements RedisLink {
  generation = 1;
  readonly problem = null;
  readonly redis: Redis;
  /** What this router would have in its outbox, by sequence. */
  readonly entries = new Map<number, OutboxEntry>();
  /** Scripts run so far: each is one round trip. */
  calls = 0;
  readonly #loaded = new Map<LuaScript, Promise<string>>();

  /** `user`: of Redis's ACL, with the password `secret`. */
  constructor(port: number, user?: string) {
    const login = user === undefined ? {} : { username: user, password: 'secret' };
    this.redis = new Redis({ port, host: '127.0.0.1', maxRetriesPerRequest: 0, enableReadyCheck: false, ...login });
  }

  close(): void {
    this.redis.disconnect();
  }

  async change(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[], entryOf?: EntryOf): Promise<ScriptReply> {
    const reply = await this.read(script, keys, args);
    const entry = entryOf?.(reply) ?? null;
    if (entry !== null) this.entries.set(entry.sequence, entry);
    return reply;
  }

  async read(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply> {
    let loaded = this.#loaded.get(script);
    if (loaded === undefined) {
      loaded = this.redis.script('LOAD', script.source) as Promise<string>;
      this.#loaded.set(script, loaded);
    }
    const sha = await loaded;
    this.calls += 1;
    const sent = args.map((arg) => (arg instanceof Uint8Array ? Buffer.from(arg.buffer, arg.byteOffset, arg.byteLength) : arg));
    return (await this.redis.callBuffer('EVALSHA', sha, keys.length, ...keys, this.generation, ...sent)) as ScriptReply;
  }
}
