/**
 * Who takes part in a recovery round: the hash `vf:{<vpool>}:round`, beside what round-scripts.ts keeps in meta. Fields: `from` (generation before), `identity`, `cut` (last change
 * sequence that this Redis had before anything was replayed), `hole` (why the round cannot be ended), `report <router>` (JSON), `alive <router>` (Redis's clock of
 * its last renewal, in ms). The hash goes with the round.
 */
import { bareScript } from './lua-pieces.ts';
import { redisKeys } from './redis-keys.ts';
import type { LuaScript } from './redis-link.ts';

/** KEYS of all scripts here: meta, round. */
export function roundKeys(vpoolName: string): string[] {
  return [redisKeys(vpoolName).meta, `vf:{${vpoolName}}:round`];
}

/** A round of this identity, or no registry at all: in both nobody can claim anything. */
const IN_ROUND = String.raw`
local ROUND = KEYS[2]
local meta = redis.call('HMGET', META, 'generation', 'round_identity', 'round_from', 'sequence')
local void = not meta[1]
if not void and (meta[1] ~= 'round' or meta[2] ~= ARGV[1]) then return {err = 'GENERATION ' .. meta[1]} end
local from = void and 'void' or meta[3]
if redis.call('HGET', ROUND, 'from') ~= from then
  redis.call('DEL', ROUND)
  redis.call('HSET', ROUND, 'from', from, 'identity', ARGV[1], 'cut', meta[4] or '0')
elseif redis.call('HGET', ROUND, 'identity') ~= ARGV[1] then
  -- Redis was restarted or promoted once more: what was replayed may be lost again, so everybody reports again. The cut stays.
  local cut = redis.call('HGET', ROUND, 'cut')
  redis.call('DEL', ROUND)
  redis.call('HSET', ROUND, 'from', from, 'identity', ARGV[1], 'cut', cut)
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

/** ARGV: 1 identity, 2 router, 3 report (JSON). */
export const REPORT_IN_ROUND: LuaScript = bareScript(
  'reportInRound',
  [],
  [],
  `${IN_ROUND}return redis.call('HSET', ROUND, 'report ' .. ARGV[2], ARGV[3])`,
);

/** ARGV: 1 identity, 2 router, 3 incarnation. Reply: {0}. The lease of whoever renews here lasts: until the round ends nobody can claim anything. */
export const RENEW_IN_ROUND: LuaScript = bareScript(
  'renewInRound',
  [],
  [],
  `${IN_ROUND}redis.call('HSET', ROUND, 'alive ' .. ARGV[2], nowMs) return {0}`,
);
