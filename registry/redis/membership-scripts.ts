/** Incarnations of routers: joined, renewed, dead for good. They keep no operation ids and leave nothing in the outbox. */
import { plainScript } from './lua-pieces.ts';

/** Dead incarnations remembered in all; one that was forgotten cannot have a process any more. */
const DEAD_INCARNATIONS_MAX = 65_536;

const BURY = String.raw`
local function bury(incarnation)
  redis.call('HDEL', LIVING, incarnation)
  if redis.call('ZSCORE', DEAD, incarnation) then return end
  redis.call('ZADD', DEAD, redis.call('HINCRBY', META, 'ordinal', 1), incarnation)
  if redis.call('ZCARD', DEAD) > ${DEAD_INCARNATIONS_MAX} then redis.call('ZREMRANGEBYRANK', DEAD, 0, 0) end
end
`;

/** ARGV: 2 router, 3 incarnation, 4 addresses and version as packed. Reply: {0, packed router} or {1}. */
export const JOIN_SCRIPT = plainScript(
  'join',
  ['routers', 'living', 'dead'],
  ['ROUTER'],
  String.raw`${BURY}
local router, incarnation = ARGV[2], ARGV[3]
local holder = redis.call('HGET', LIVING, incarnation)
if redis.call('ZSCORE', DEAD, incarnation) or (holder and holder ~= router) then return {1} end
local former = readRouter(router)
local same = former and former.incarnation == incarnation
if same and former.dead then return {1} end
if former and not same then bury(former.incarnation) end
redis.call('HSET', LIVING, incarnation, router)
return {0, putRouter(router, {dead = false, counter = same and former.counter or 0, incarnation = incarnation, rest = ARGV[4]})}
`,
);

/** ARGV: 2 router, 3 incarnation. Reply: {0, packed router} or {1}. */
export const RENEW_SCRIPT = plainScript(
  'renew',
  ['routers'],
  ['ROUTER'],
  String.raw`
local former = readRouter(ARGV[2])
if not former or former.incarnation ~= ARGV[3] or former.dead then return {1} end
former.counter = former.counter + 1
return {0, putRouter(ARGV[2], former)}
`,
);

/** ARGV: 2 router, 3 incarnation, 4 lease counter seen, or empty: leave, whatever it is. Reply: {0} dead, {1} conflict. */
export const MARK_DEAD_SCRIPT = plainScript(
  'markDead',
  ['routers', 'living', 'dead'],
  ['ROUTER'],
  String.raw`${BURY}
local former = readRouter(ARGV[2])
if not former or former.incarnation ~= ARGV[3] or former.dead then
  -- Replaced or never here: either way it is not alive.
  if ARGV[4] ~= '' then bury(ARGV[3]) end
  return {0}
end
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= former.counter then return {1} end
bury(ARGV[3])
former.dead = true
putRouter(ARGV[2], former)
return {0}
`,
);

/** ARGV: 2 router. Reply: {0} it is not in the list (any more), {1} it is not dead, {2} records say that it owns something. */
export const FORGET_ROUTER_SCRIPT = plainScript(
  'forgetRouter',
  ['routers', 'owned'],
  ['ROUTER'],
  String.raw`
local former = readRouter(ARGV[2])
if not former then return {0} end
if not former.dead then return {1} end
if #redis.call('ZRANGEBYLEX', OWNED, '[' .. ARGV[2], '[' .. ARGV[2] .. string.rep('\255', 8), 'LIMIT', 0, 1) > 0 then return {2} end
redis.call('HDEL', ROUTERS, ARGV[2])
return {0}
`,
);

/** Reply: router ids and packed routers in turns. */
export const ROUTERS_SCRIPT = plainScript('routers', ['routers'], [], `return redis.call('HGETALL', ROUTERS)`);
