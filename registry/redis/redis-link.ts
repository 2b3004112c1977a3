/**
 * How the Redis registry talks to its Redis: scripts that change something and scripts that read, with the promises of design section 5. The link hides
 * connections, Sentinel, Cluster, WAIT, time-outs and the generation; the verbs know keys and scripts only.
 *
 * Rejects with ApplianceError `registry-unavailable` (retryable; the outcome of a change is unknown), `generation-changed` is settled inside (the recovery
 * round runs, then the caller's retry succeeds), `registry-corrupt` for replies that are none. A script's own error reply rejects with the Error that ioredis
 * made of it (its message begins with the error's code), except `GENERATION`.
 *
 * The meta key is the hash `vf:{<vpool>}:meta`. Fields that link and scripts share: `generation` (compared with ARGV[1] as text), `identity` (the link's alone),
 * `sequence` (last change sequence given out), `next_fileid`, `vpool_uuid`. All of them are decimal integers but `identity` and `vpool_uuid`.
 */
import type { OutboxEntry } from '../ports.ts';

/** A Lua script. Its first key is the vPool's meta key; `KEYS` all carry the vPool's hash tag. */
export interface LuaScript {
  readonly name: string;
  readonly source: string;
}

export type ScriptArgument = string | number | Uint8Array;

/** Replies as ioredis gives them for `evalshaBuffer`: Buffer, integer, null, arrays of these. To be validated by the caller. */
export type ScriptReply = Buffer | number | null | readonly ScriptReply[];

/**
 * What a change's reply leaves for this router's redo log; null: it changed nothing that the outbox keeps. A repeated operation id gives the entry of its first
 * execution again (same sequence): whoever answers for it must have it in his log, since the router that ran it first may be dead. Called once per reply, before
 * `change` resolves.
 */
export type EntryOf = (reply: ScriptReply) => OutboxEntry | null;

export interface RedisLink {
  /**
   * Runs a script that may change something. Resolves when its effect is on as many replicas as the settings ask for (WAIT on the same connection), the
   * primary is the one of the current generation, and what `entryOf` answered is durable in the local outbox log. `repeatable` (default false): it may be run
   * again when its outcome is unknown, since it carries an operation id or has the same effect twice; the link does so for some seconds before it rejects.
   */
  change(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[], entryOf?: EntryOf, repeatable?: boolean): Promise<ScriptReply>;
  /** Runs a script that changes nothing. Resolves only when this primary confirmed a write not too long before, checked after the reply came. */
  read(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply>;
  /** Generation that every script gets as ARGV[1] from the link (`args` begin at ARGV[2]): a script that finds another one in the meta key answers the error `GENERATION`. */
  readonly generation: number;
  /** What is wrong, or null. */
  readonly problem: string | null;
}
