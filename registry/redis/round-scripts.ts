/**
 * Making a registry, and recovery rounds (design section 5): what routers run when they meet a Redis that may have forgotten acknowledged changes.
 *
 * During a round the meta field `generation` is the text "round", so every other script fails with `GENERATION` whatever number it brings. The order:
 * `BEGIN_ROUND_SCRIPT` by every router that meets the new identity (the first one begins it, the others learn of it); each router replays its outbox with
 * `REPLAY_ENTRY_SCRIPT`, in any order, as often as it likes, then asserts what it serves with `ASSERT_OWNER_SCRIPT`; when a lease has passed since the round
 * began, `FINISH_ROUND_SCRIPT` by anyone. Another failover in the middle is another identity: the round begins anew, what was replayed stays.
 *
 * None of them looks at ARGV[1]; `identity` is the link's text for the Redis process (its run id).
 */
import { bareScript, COUNT } from './lua-pieces.ts';

/** Fileids and sequences of a generation begin at its number times this, and a little above: beyond everything that was forgotten and replayed by nobody. */
export const ROUND_JUMP = 2 ** 32;

/** Bounds of remembered operations in all: about 1 KiB each in Redis's memory, more where inline files are written. */
const OPERATIONS_MAX = 100_000;
const OPERATION_BYTES_MAX = 128 * 1024 * 1024;

/** Reply: what meta has, or nil fields: {generation, identity, vpool_name, vpool_uuid, sequence, round_from, round_identity, round_since, Redis's clock in ms}. All but the last are text. */
export const READ_META_SCRIPT = bareScript(
  'readMeta',
  [],
  [],
  String.raw`
local clock = redis.call('TIME')
local found = redis.call('HMGET', META, 'generation', 'identity', 'vpool_name', 'vpool_uuid', 'sequence', 'round_from', 'round_identity', 'round_since')
found[9] = clock[1] * 1000 + math.floor(clock[2] / 1000)
return found
`,
);

/**
 * Makes the registry when there is none. ARGV: 2 vPool name, 3 vPool uuid, 4 packed root inode, 5 identity, 6 generation.
 * Reply: "created", "exists" (meta is there: read it), or "remains" (other keys without meta: a damaged registry, nothing was changed).
 */
export const CREATE_VPOOL_SCRIPT = bareScript(
  'createVpool',
  ['inodes', 'names', 'owners'],
  ['ID', 'INODE'],
  String.raw`
if redis.call('EXISTS', META) == 1 then return 'exists' end
if redis.call('EXISTS', INODES, NAMES, OWNERS) > 0 then return 'remains' end
local root = decodeInode(ARGV[4])
redis.call('HSET', INODES, id(root.fileid), ARGV[4])
redis.call('HSET', META, 'format', '1', 'generation', ARGV[6], 'identity', ARGV[5], 'vpool_name', ARGV[2], 'vpool_uuid', ARGV[3], 'sequence', '0',
  'next_fileid', id(root.fileid + 1), 'inodes', '1', 'used_bytes', id(root.used), 'ordinal', '0', 'operations_max', '${OPERATIONS_MAX}', 'operation_bytes', '0', 'operation_bytes_max', '${OPERATION_BYTES_MAX}')
return 'created'
`,
);

/**
 * Begins or joins a round. ARGV: 2 identity of this Redis.
 * Reply: {"void"}: there is no registry; {"current", generation}: its identity is this one, nothing to do; {"round", generation before, since (ms), Redis's
 * clock (ms)}. Numbers are text but for the clock.
 */
export const BEGIN_ROUND_SCRIPT = bareScript(
  'beginRound',
  ['drops'],
  [],
  String.raw`
local clock = redis.call('TIME')
local nowMs = clock[1] * 1000 + math.floor(clock[2] / 1000)
local generation = redis.call('HGET', META, 'generation')
if not generation then return {'void'} end
if generation ~= 'round' then
  if redis.call('HGET', META, 'identity') == ARGV[2] then return {'current', generation} end
  redis.call('DEL', DROPS)
  redis.call('HSET', META, 'generation', 'round', 'round_from', generation, 'round_identity', ARGV[2], 'round_since', string.format('%.0f', nowMs))
elseif redis.call('HGET', META, 'round_identity') ~= ARGV[2] then
  redis.call('HSET', META, 'round_identity', ARGV[2], 'round_since', string.format('%.0f', nowMs))
end
local found = redis.call('HMGET', META, 'round_from', 'round_since')
return {'round', found[1], found[2], nowMs}
`,
);

/**
 * Applies one outbox entry: each record is put or dropped only if the entry's sequence is newer than the record's (and than a drop of it in this round), an
 * owner record only if its epoch is not older either. Commutative and idempotent. ARGV: 2 identity; 3 sequence; 4 changes as `packChanges`; 5 `<verb>
 * <operation id>` or empty; 6 outcome as `packOutcome`; 7 wall clock in ms; 8 the entry's generation.
 * Reply: how many records it changed. Error `GENERATION`: there is no such round.
 */
export const REPLAY_ENTRY_SCRIPT = bareScript(
  'replayEntry',
  ['inodes', 'names', 'listing', 'tombstones', 'owners', 'owned', 'drops', 'operations', 'operationAge', 'operationClients'],
  ['ID', 'INODE', 'OWNER', 'PUT_OWNER'],
  String.raw`
local meta = redis.call('HMGET', META, 'generation', 'round_identity', 'sequence', 'next_fileid', 'inodes', 'used_bytes', 'ordinal')
if meta[1] ~= 'round' or meta[2] ~= ARGV[2] then return {err = 'GENERATION ' .. (meta[1] or 'none')} end
local sequence, nextFileid = tonumber(ARGV[3]), tonumber(meta[4])
local inodes, used = tonumber(meta[5]), tonumber(meta[6])
${COUNT}local applied, at, changes = 0, 1, ARGV[4]
local function dropped(key) return tonumber(redis.call('HGET', DROPS, key) or '0') end
local function drop(key) if dropped(key) < sequence then redis.call('HSET', DROPS, key, id(sequence)) end end
local function sequenceOf(raw) local _, its = struct.unpack('<BI8', raw) return its end
local function newer(raw, key) return (not raw or sequenceOf(raw) < sequence) and dropped(key) <= sequence end
local function listed(directory, raw, name)
  local _, _, cookie, fileid = struct.unpack('<BI8I8I8', raw)
  return struct.pack('>I8I8I8', directory, cookie, fileid) .. name
end
while at <= #changes do
  local length = struct.unpack('<I4', changes, at)
  local kind, packed = string.sub(changes, at + 4, at + 4), string.sub(changes, at + 5, at + 3 + length)
  at = at + 4 + length
  local wrote = true
  if kind == 'I' then
    local i = decodeInode(packed)
    local fileid = id(i.fileid)
    if i.fileid >= nextFileid then nextFileid = i.fileid + 1 end
    local old = redis.call('HGET', INODES, fileid)
    if newer(old, 'I' .. fileid) then
      local counted = old and decodeInode(old).counted
      i.counted = counted or nil
      recount(i, i.state == 0)
      redis.call('HSET', INODES, fileid, packed)
      if i.state == 1 then redis.call('ZADD', TOMBSTONES, fileid, fileid) end
    else wrote = false end
  elseif kind == 'i' then
    local fileid = id((struct.unpack('<I8', packed)))
    local old = redis.call('HGET', INODES, fileid)
    drop('I' .. fileid)
    if old and sequenceOf(old) < sequence then
      recount(decodeInode(old), false)
      redis.call('HDEL', INODES, fileid)
      redis.call('ZREM', TOMBSTONES, fileid)
    else wrote = false end
  elseif kind == 'E' then
    local directory, cookie, fileid = struct.unpack('<I8I8I8', packed)
    local name = string.sub(packed, 25)
    local field = id(directory) .. '/' .. name
    local old = redis.call('HGET', NAMES, field)
    if newer(old, 'E' .. field) then
      if old then redis.call('ZREM', LISTING, listed(directory, old, name)) end
      local raw = struct.pack('<BI8I8I8', 1, sequence, cookie, fileid)
      redis.call('HSET', NAMES, field, raw)
      redis.call('ZADD', LISTING, 0, listed(directory, raw, name))
    else wrote = false end
  elseif kind == 'e' then
    local directory, name = struct.unpack('<I8', packed), string.sub(packed, 9)
    local field = id(directory) .. '/' .. name
    local old = redis.call('HGET', NAMES, field)
    drop('E' .. field)
    if old and sequenceOf(old) < sequence then
      redis.call('HDEL', NAMES, field)
      redis.call('ZREM', LISTING, listed(directory, old, name))
    else wrote = false end
  elseif kind == 'O' then
    local o = decodeOwner(packed)
    local old = readOwner(id(o.fileid))
    local put = dropped('O' .. id(o.fileid)) <= sequence
    if put and old then
      local order = compareEpochs(o.term, old.term)
      if order == 0 then put = old.seq < sequence else put = order > 0 end
      if old.counterMax > o.counterMax then
        -- Numbers given out are never given out again, whoever wins.
        if put then o.counterMax = old.counterMax end
      elseif not put and o.counterMax > old.counterMax then
        old.counterMax = o.counterMax
        storeOwner(old)
      end
    end
    if put then
      o.holder = old and old.holder or nil
      storeOwner(o)
    else wrote = false end
  elseif kind == 'o' then
    local fileid = id((struct.unpack('<I8', packed)))
    local old = readOwner(fileid)
    drop('O' .. fileid)
    if old and old.seq < sequence then removeOwner(old) else wrote = false end
  end
  if wrote then applied = applied + 1 end
end
local ordinal = tonumber(meta[7])
if ARGV[5] ~= '' and redis.call('HEXISTS', OPERATIONS, ARGV[5]) == 0 then
  ordinal = ordinal + 1
  local value = struct.pack('<I8I8I8I8I4', tonumber(ARGV[7]), ordinal, sequence, tonumber(ARGV[8]), #ARGV[6]) .. ARGV[6] .. changes
  redis.call('HSET', OPERATIONS, ARGV[5], value)
  redis.call('HINCRBY', META, 'operation_bytes', #ARGV[5] + #value)
  redis.call('ZADD', OPERATION_AGE, ordinal, ARGV[5])
  redis.call('ZADD', OPERATION_CLIENTS, 0, string.match(ARGV[5], '^%S+ ([^|]*)') .. '\0' .. struct.pack('>I8', ordinal))
end
redis.call('HSET', META, 'sequence', id(math.max(sequence, tonumber(meta[3]))), 'next_fileid', id(nextFileid), 'inodes', id(inodes), 'used_bytes', id(used),
  'ordinal', id(ordinal))
return applied
`,
);

/**
 * Puts the record that a router serves, when the registry's is of a lower epoch or missing: a lower one in the registry is repaired, never obeyed. One of the same
 * term stays as it is: what its owner knows of it was replayed before, and it may hold an update whose answer was lost, and which will be answered from memory
 * when it is asked for again. In a round or outside of one. ARGV: 1 generation (outside of a round); 2 identity (in a round); 3 packed owner record.
 * Reply: {"done" | "conflict", packed record that is there now}, or {"gone"}: no live inode of class file or volume has that number and uuid.
 */
export const ASSERT_OWNER_SCRIPT = bareScript(
  'assertOwner',
  ['inodes', 'owners', 'owned'],
  ['ID', 'INODE', 'OWNER', 'PUT_OWNER'],
  String.raw`
local meta = redis.call('HMGET', META, 'generation', 'round_identity')
if meta[1] ~= ARGV[1] and not (meta[1] == 'round' and meta[2] == ARGV[2]) then return {err = 'GENERATION ' .. (meta[1] or 'none')} end
local o = decodeOwner(ARGV[3])
local i = liveInode(id(o.fileid))
if not i or (i.class ~= 2 and i.class ~= 3) or not string.find(i.fixed, o.uuid, 1, true) then return {'gone'} end
local old = readOwner(id(o.fileid))
o.seq, o.holder = 0, nil
if old then
  if compareEpochs(o.term, old.term) <= 0 then return {o.term == old.term and 'done' or 'conflict', old.raw} end
  o.seq, o.holder, o.counterMax = old.seq, old.holder, math.max(o.counterMax, old.counterMax)
end
storeOwner(o)
return {'done', o.raw}
`,
);

/**
 * Ends a round: the next generation, this identity, counters jump. The hash of who takes part (round-member-scripts.ts) goes with the round, and never with a later one. ARGV: 2 identity, 3 least generation (above every one that the caller has seen).
 * Reply: {"done", generation} or, when there is no such round (any more), {"current", generation or nil}. Generations are text.
 */
export const FINISH_ROUND_SCRIPT = bareScript(
  'finishRound',
  ['drops', 'round'],
  ['ID'],
  String.raw`
local meta = redis.call('HMGET', META, 'generation', 'round_identity', 'round_from', 'sequence', 'next_fileid')
if meta[1] ~= 'round' or meta[2] ~= ARGV[2] then return {'current', meta[1]} end
local generation = math.max(tonumber(meta[3]) + 1, tonumber(ARGV[3]))
-- Each generation has numbers of its own: what was given out in one that this Redis has forgotten is below. After a restore another process may live in one of the same number, with routers
-- that know nothing of the first: each process begins elsewhere in it, so that two files never get one fileid.
local elsewhere = tonumber(string.sub(redis.sha1hex(ARGV[2]), 1, 7), 16)
local function beyond(now)
  local start = generation * ${ROUND_JUMP} + elsewhere
  if tonumber(now) >= start then start = tonumber(now) + ${ROUND_JUMP} end
  return id(math.min(start, 9007199254740991))
end
local sequence, fileid = beyond(meta[4]), beyond(meta[5])
generation = id(generation)
redis.call('HSET', META, 'generation', generation, 'identity', ARGV[2], 'sequence', sequence, 'next_fileid', fileid)
redis.call('HDEL', META, 'round_from', 'round_identity', 'round_since')
redis.call('DEL', DROPS, ROUND)
return {'done', generation}
`,
);
