/**
 * How the Redis registry talks to its Redis: scripts that change something and scripts that read, with the promises of design section 5. The link hides
 * connections, Sentinel, Cluster, WAIT, time-outs and the generation; the verbs know keys and scripts only.
 *
 * Rejects with ApplianceError `registry-unavailable` (retryable; the outcome of a change is unknown), `generation-changed` is settled inside (the recovery
 * round runs, then the caller's retry succeeds), `registry-corrupt` for replies that are none.
 */

/** A Lua script. Its first key is the vPool's meta key; `KEYS` all carry the vPool's hash tag. */
export interface LuaScript {
  readonly name: string;
  readonly source: string;
}

export type ScriptArgument = string | number | Uint8Array;

/** Replies as ioredis gives them for `evalshaBuffer`: Buffer, integer, null, arrays of these. To be validated by the caller. */
export type ScriptReply = Buffer | number | null | readonly ScriptReply[];

export interface RedisLink {
  /**
   * Runs a script that may change something. Resolves when its effect is on as many replicas as the settings ask for (WAIT on the same connection), and the
   * primary is the one of the current generation.
   */
  change(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply>;
  /** Runs a script that changes nothing. Resolves only when this primary confirmed a write not too long before, checked after the reply came. */
  read(script: LuaScript, keys: readonly string[], args: readonly ScriptArgument[]): Promise<ScriptReply>;
  /** Generation that every script gets as ARGV[1] from the link: a script that finds another one in the meta key answers the error `GENERATION`. */
  readonly generation: number;
  /** What is wrong, or null. */
  readonly problem: string | null;
}
