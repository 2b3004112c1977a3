/**
 * One connection to one Redis, by ioredis with everything off that hides failures: no queue while it is away, no reconnecting, no resending. Whoever has it
 * learns of its end by `onEnd` and makes another. A server that hangs is noticed by the time-out of a batch: ioredis never notices (reference/services.md).
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { Redis, type RedisOptions } from 'ioredis';

import { ApplianceError } from '../../server/core/errors.ts';
import type { Clock } from '../../server/core/time.ts';
import type { LuaScript, ScriptArgument, ScriptReply } from './redis-link.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';

/** A host that does not accept is away; every try of it is time in which Sentinel may have named another. One that accepts may be slow: it has a command's time. */
const CONNECT_TIMEOUT_MS = 500;
/** Of ioredis, which looks at its clock and not at what came while the process stood still; ours ends first. */
const BACKSTOP_MS = 60_000;
/** Of a time-out. */
const STEPS = 5;

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

/** One command of a batch: a script, or a plain command. */
export type RedisCommand =
  | { readonly kind: 'script'; readonly script: LuaScript; readonly keys: readonly string[]; readonly args: readonly ScriptArgument[] }
  | { readonly kind: 'plain'; readonly words: readonly [string, ...ScriptArgument[]] };

/** What a command answered. `refused`: Redis answered an error (`code` is its first word). */
export type RedisAnswer =
  | { readonly kind: 'reply'; readonly reply: ScriptReply }
  | { readonly kind: 'refused'; readonly code: string; readonly error: Error };

/** The outcome of what was sent is unknown, or nothing was sent at all. */
export function unavailable(message: string, cause?: unknown): ApplianceError {
  return new ApplianceError('registry-unavailable', message, cause === undefined ? { retryable: true } : { retryable: true, cause });
}

export interface Credentials {
  readonly username: string | null;
  readonly password: string | null;
}

/** Credentials of the Redis itself. @throws ApplianceError `registry-unavailable` when the password file cannot be read. */
export function credentialsOf(settings: RedisRegistrySettings): Credentials {
  if (settings.passwordFile === null) return { username: settings.username, password: settings.password };
  return { username: settings.username, password: (fileText(settings.passwordFile, 'passwordFile').split('\n')[0] ?? '').trim() };
}

/** Of files that operators replace: read at every connection. */
function fileText(path: string, setting: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw unavailable(`registry.redis.${setting}: ${path} cannot be read`, error);
  }
}

/** Reads the parts of an URL of the settings. */
export function addressOf(url: string): RedisAddress {
  const { hostname, port } = new URL(url);
  return { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: port === '' ? 6379 : Number(port) };
}

function tlsOptions(settings: RedisRegistrySettings): Pick<RedisOptions, 'tls'> {
  if (!settings.urls.some((url) => url.startsWith('rediss:'))) return {};
  const read = (path: string | null, name: string): string | undefined => (path === null ? undefined : fileText(path, name));
  const ca = read(settings.caFile, 'caFile');
  const cert = read(settings.certFile, 'certFile');
  const key = read(settings.keyFile, 'keyFile');
  return { tls: { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) } };
}

export class RedisConnection {
  readonly address: RedisAddress;
  readonly #redis: Redis;
  readonly #clock: Clock;
  /** Digests of scripts that this server has had from here. */
  readonly #loaded = new Set<LuaScript>();
  #ended = false;
  #onEnd: (() => void)[] = [];

  private constructor(address: RedisAddress, redis: Redis, clock: Clock) {
    this.address = address;
    this.#redis = redis;
    this.#clock = clock;
    redis.on('end', () => this.#end());
    redis.on('close', () => this.#end());
  }

  /** Connects and authenticates. @throws ApplianceError `registry-unavailable`. */
  static async open(
    address: RedisAddress,
    settings: RedisRegistrySettings,
    components: { readonly clock: Clock; readonly credentials: Credentials; readonly name: string },
  ): Promise<RedisConnection> {
    const where = `${address.host}:${address.port}`;
    const { clock, credentials } = components;
    const redis = new Redis({
      host: address.host,
      port: address.port,
      ...(credentials.username === null ? {} : { username: credentials.username }),
      ...(credentials.password === null ? {} : { password: credentials.password }),
      ...tlsOptions(settings),
      connectionName: components.name,
      connectTimeout: BACKSTOP_MS,
      // A server that hangs answers no end of the stream either.
      disconnectTimeout: 10,
      lazyConnect: true,
      protocol: 2,
      disableClientInfo: true,
      enableReadyCheck: false,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      retryStrategy: null,
      reconnectOnError: null,
      noDelay: true,
    });
    let lastError: Error | null = null;
    redis.on('error', (error: Error) => {
      lastError = error;
    });
    const connection = new RedisConnection(address, redis, clock);
    const connectMs = Math.min(settings.commandTimeoutMs, CONNECT_TIMEOUT_MS);
    const giveUp = (): void => redis.disconnect();
    let cancel = afterRunning(clock, connectMs, () => {
      // A TLS handshake comes after the host accepted and before ioredis says that it is connected: it has a command's time, too.
      if (isAccepted(redis)) cancel = afterRunning(clock, settings.commandTimeoutMs, giveUp);
      else giveUp();
    });
    // What ioredis says first (AUTH, the connection's name) would be waited for for ever.
    redis.on('connect', () => {
      cancel();
      cancel = afterRunning(clock, settings.commandTimeoutMs, giveUp);
    });
    try {
      await redis.connect();
      // AUTH was sent before, but its refusal is only an event.
      const [pong] = await connection.run([{ kind: 'plain', words: ['PING'] }], settings.commandTimeoutMs);
      if (pong?.kind === 'refused') throw pong.error;
      return connection;
    } catch (error) {
      connection.close();
      throw unavailable(`Redis at ${where} cannot be reached: ${describe(lastError ?? error)}`, lastError ?? error);
    } finally {
      cancel();
    }
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Calls back once, when it ends or has ended. */
  onEnd(callback: () => void): void {
    if (this.#ended) callback();
    else this.#onEnd.push(callback);
  }

  /**
   * Sends all commands at once and resolves with an answer for each; `onReply` gets each reply that is no error as soon as it comes. Rejects, and ends the
   * connection, when not all answers came in time: then nothing is known of those that `onReply` did not get.
   * @throws ApplianceError `registry-unavailable`.
   */
  async run(commands: readonly RedisCommand[], timeoutMs: number, onReply?: (index: number, reply: ScriptReply) => void): Promise<RedisAnswer[]> {
    if (this.#ended) throw unavailable('the connection to Redis is closed; nothing was sent');
    const pipeline = this.#redis.pipeline();
    for (const [index, command] of commands.entries()) {
      const answered = (error: Error | null | undefined, reply: unknown): void => {
        if (onReply !== undefined && (error === null || error === undefined)) onReply(index, reply as ScriptReply);
      };
      if (command.kind === 'plain') {
        const [name, ...words] = command.words;
        pipeline.callBuffer(name, words.map(sendable), answered);
      } else {
        const { script, keys, args } = command;
        const known = this.#loaded.has(script);
        this.#loaded.add(script);
        const words = [known ? digestOf(script) : script.source, keys.length, ...keys, ...args.map(sendable)];
        pipeline.callBuffer(known ? 'EVALSHA' : 'EVAL', words, answered);
      }
    }
    const { promise: late, reject } = Promise.withResolvers<never>();
    const startedMs = this.#clock.monotonicMs();
    const cancel = afterRunning(this.#clock, timeoutMs, () => {
      reject(unavailable(`Redis at ${this.address.host}:${this.address.port} did not answer within ${timeoutMs} ms`));
    });
    try {
      const results = await Promise.race([pipeline.exec(), late]);
      if (results === null) throw unavailable('Redis answered no batch');
      return results.map(([error, reply]): RedisAnswer => {
        if (error === null) return { kind: 'reply', reply: reply as ScriptReply };
        if (error.name !== 'ReplyError') throw error;
        return { kind: 'refused', code: error.message.split(' ', 1)[0] ?? '', error };
      });
    } catch (error) {
      this.close();
      if (error instanceof ApplianceError) throw error;
      throw unavailable(
        `the connection to Redis at ${this.address.host}:${this.address.port} broke after ${Math.round(this.#clock.monotonicMs() - startedMs)} ms: ${describe(error)}`,
        error,
      );
    } finally {
      cancel();
    }
  }

  /** Ends it at once; what is under way rejects. */
  close(): void {
    this.#redis.disconnect();
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const callbacks = this.#onEnd;
    this.#onEnd = [];
    for (const callback of callbacks) callback();
  }
}

/** Its host accepted the connection. Between a lookup of the address and the first attempt there is no stream. */
function isAccepted(redis: Redis): boolean {
  const stream = redis.stream as Redis['stream'] | undefined;
  return stream !== undefined && stream !== null && !stream.connecting && !stream.destroyed;
}

/**
 * Calls back once after so much time in which this process ran: what it stood still counts for a step at most, and what came meanwhile is taken first. On a machine
 * that has too much to do nobody would be connected else, nor hear an answer, and leases would lapse one after the other. The returned function cancels.
 */
function afterRunning(clock: Clock, delayMs: number, callback: () => void): () => void {
  let cancel: () => void = () => undefined;
  let isOver = false;
  const wait = (steps: number): void => {
    cancel = clock.after(delayMs / STEPS, () => {
      if (steps > 1) wait(steps - 1);
      else
        clock.soon(() =>
          clock.soon(() => {
            if (!isOver) callback();
          }),
        );
    });
  };
  wait(STEPS);
  return () => {
    isOver = true;
    cancel();
  };
}

/** ioredis takes Buffers only. */
function sendable(value: ScriptArgument): string | Buffer | number {
  return value instanceof Uint8Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
}

const digests = new WeakMap<LuaScript, string>();

function digestOf(script: LuaScript): string {
  let digest = digests.get(script);
  if (digest === undefined) {
    digest = createHash('sha1').update(script.source).digest('hex');
    digests.set(script, digest);
  }
  return digest;
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
