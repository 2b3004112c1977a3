/**
 * Who takes part in a recovery round: the hash `vf:{<vpool>}:round`, beside what round-scripts.ts keeps in meta. Fields: `from` (generation before), `identity`, `cut` (last change
 * sequence that this Redis had before anything was replayed), `hole` (why the round cannot be ended), `report <router>` (JSON), `alive <router>` (Redis's clock of
 * its last renewal, in ms), `late` (the router that asked for it, since it missed one). The hash goes with the round. The hash `vf:{<vpool>}:rounds` stays: generation
 * before a round -> its cut, and `identity <generation>` -> the process that it lived on, for routers that missed it (lineage.ts).
 */
import { bareScript } from './lua-pieces.ts';
import { redisKeys } from './redis-keys.ts';
import type { LuaScript } from './redis-link.ts';

/** KEYS of all scripts here: meta, round, rounds, drops. */
export function roundKeys(vpoolName: string): string[] {
  const { meta, drops, round } = redisKeys(vpoolName);
  return [meta, round, `vf:{${vpoolName}}:rounds`, drops];
}

/** Rounds of which the cut is remembered. */
const ROUNDS_MAX = 1_000;

/** A round of this identity, or no registry at all: in both nobody can claim anything. */
const IN_ROUND = String.raw`
local ROUND = KEYS[2]
local meta = redis.call('HMGET', META, 'generation', 'round_identity', 'round_from', 'sequence', 'identity')
local void = not meta[1]
if not void and (meta[1] ~= 'round' or meta[2] ~= ARGV[1]) then return {err = 'GENERATION ' .. meta[1]} end
local from = void and 'void' or meta[3]
if redis.call('HGET', ROUND, 'from') ~= from then
  redis.call('DEL', ROUND)
  redis.call('HSET', ROUND, 'from', from, 'identity', ARGV[1], 'cut', meta[4] or '0')
  if not void then
    redis.call('HSET', KEYS[3], from, meta[4], 'identity ' .. from, meta[5] or '')
    local old = string.format('%.0f', tonumber(from) - ${ROUNDS_MAX})
    redis.call('HDEL', KEYS[3], old, 'identity ' .. old)
  end
elseif redis.call('HGET', ROUND, 'identity') ~= ARGV[1] then
  -- Redis was restarted or promoted once more: what was replayed may be lost again, so everybody reports again. The cut stays.
  local cut, late = unpack(redis.call('HMGET', ROUND, 'cut', 'late'))
  redis.call('DEL', ROUND)
  redis.call('HSET', ROUND, 'from', from, 'identity', ARGV[1], 'cut', cut)
  if late then redis.call('HSET', ROUND, 'late', late) end
end
local clock = redis.call('TIME')
local nowMs = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
`;

/** ARGV: 1 identity. Reply: cut, and all fields of the round with their values. Error `GENERATION`: there is no such round. */
export const ENTER_ROUND: LuaScript = bareScript(
  'enterRound',
  [],
  [],
  `${IN_ROUND}return {redis.call('HGET', ROUND, 'cut'), redis.call('HGETALL', ROUND), nowMs}`,
);

/** ARGV: 1 identity, 2 router, 3 report (JSON), 4 the generation that the round came from: what was looked up for one round says nothing of the next on the same process. */
export const REPORT_IN_ROUND: LuaScript = bareScript(
  'reportInRound',
  [],
  [],
  String.raw`${IN_ROUND}
if from ~= ARGV[4] then return {err = 'GENERATION another round'} end
return redis.call('HSET', ROUND, 'report ' .. ARGV[2], ARGV[3])
`,
);

/** ARGV: 1 identity, 2 router, 3 incarnation. Reply: {0}. The lease of whoever renews here lasts: until the round ends nobody can claim anything. */
export const RENEW_IN_ROUND: LuaScript = bareScript(
  'renewInRound',
  [],
  [],
  `${IN_ROUND}redis.call('HSET', ROUND, 'alive ' .. ARGV[2], nowMs) return {0}`,
);

/**
 * A round on a Redis that is as it should be, for a router that missed an earlier one and has changes from before it. ARGV: 1 identity, 2 the generation that it found, 3 cut: the
 * earlier round's, 4 router. Reply: 1, or 0 when it is another generation meanwhile.
 */
export const BEGIN_LATE_ROUND: LuaScript = bareScript(
  'beginLateRound',
  [],
  [],
  String.raw`
local meta = redis.call('HMGET', META, 'generation', 'sequence', 'identity')
if meta[1] ~= ARGV[2] then return 0 end
local clock = redis.call('TIME')
redis.call('DEL', KEYS[4], KEYS[2])
redis.call('HSET', META, 'generation', 'round', 'round_from', ARGV[2], 'round_identity', ARGV[1], 'round_since',
  string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)))
redis.call('HSET', KEYS[2], 'from', ARGV[2], 'identity', ARGV[1], 'cut', ARGV[3], 'late', ARGV[4])
redis.call('HSET', KEYS[3], ARGV[2], meta[2], 'identity ' .. ARGV[2], meta[3] or '')
return 1
`,
);
