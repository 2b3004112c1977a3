/**
 * Pieces that the scripts are made of. Numbers are doubles in Lua, so everything below 2^53 is exact as long as nobody prints it: `id` prints, packed
 * records hold integers of 8 bytes, and no JSON is read or written in Lua (cjson rounds to 14 digits and turns empty lists into objects).
 *
 * A script runs to its end or not at all, but what it wrote before an error stays: every check comes before the first write.
 */
import type { RedisKey } from './redis-keys.ts';
import type { LuaScript } from './redis-link.ts';

/** A script and the keys that it names; their order is the order of KEYS. */
export interface VerbScript extends LuaScript {
  readonly keys: readonly RedisKey[];
}

/** Status of a reply: its first element. */
export const STATUS = { done: 0, dead: 1, late: 2, corrupt: 3, bug: 4, full: 5, unavailable: 6 } as const;

/** Prints an integer. */
const ID = String.raw`
local function id(number) return string.format('%.0f', number) end
`;

/** Layouts are little-endian for Lua's `struct`; packed-inode.ts and packed-owner.ts read the same. Inodes in memory: fields by name, `raw` as read or as last written, `fixed` = verifier, uuid, target as they are packed. */
const INODE = String.raw`
local INODE = '<BI8I8I8BBBI2I4I4I4I8I8I4I4I4I4I4I4I8I8I8BI2I4'
local function decodeInode(raw)
  local i, _, flags, inlineLength, at = {raw = raw}
  _, i.seq, i.fileid, i.generation, i.type, i.class, i.state, i.mode, i.uid, i.gid, i.nlink, i.size, i.used, i.as, i.an, i.ms, i.mn, i.cs, i.cn,
    i.parent, i.nextCookie, i.unlinkedMs, flags, i.targetLength, inlineLength, at = struct.unpack(INODE, raw)
  i.flags = flags
  i.hasInline = flags % 16 >= 8
  i.fixed = string.sub(raw, at, #raw - inlineLength)
  i.inline = string.sub(raw, #raw - inlineLength + 1)
  if i.state == 0 then i.counted = i.used end
  return i
end
local function encodeInode(i)
  local flags = i.flags % 8
  if i.hasInline then flags = flags + 8 end
  if i.state == 1 then flags = flags + 16 end
  return struct.pack(INODE, 1, i.seq, i.fileid, i.generation, i.type, i.class, i.state, i.mode, i.uid, i.gid, i.nlink, i.size, i.used,
    i.as, i.an, i.ms, i.mn, i.cs, i.cn, i.parent, i.nextCookie, i.unlinkedMs, flags, i.targetLength, #i.inline) .. i.fixed .. i.inline
end
local function readInode(fileid)
  local raw = redis.call('HGET', INODES, fileid)
  return raw and decodeInode(raw)
end
local function liveInode(fileid)
  local i = readInode(fileid)
  return i and i.state == 0 and i
end
`;

/** Counting of usage, behind locals `inodes` and `used`. Needs INODE. */
export const COUNT = String.raw`
local function recount(i, counts)
  if i.counted then inodes = inodes - 1; used = used - i.counted end
  i.counted = counts and i.used or nil
  if i.counted then inodes = inodes + 1; used = used + i.counted end
end
`;

/** Writing inodes: needs INODE, COUNT and the frame. */
const PUT_INODE = String.raw`
local function storeInode(i)
  recount(i, i.state == 0)
  i.raw = encodeInode(i)
  redis.call('HSET', INODES, id(i.fileid), i.raw)
end
-- What the owner tells: size, used, atime, mtime, ctime.
local function takeCopy(i, packed, at)
  local cs, cn
  i.size, i.used, i.as, i.an, i.ms, i.mn, cs, cn = struct.unpack('<I8I8I4I4I4I4I4I4', packed, at)
  -- Renames and links moved the registry's ctime on; the owner may not know of them yet.
  if cs > i.cs or (cs == i.cs and cn > i.cn) then i.cs, i.cn = cs, cn end
end
local function putInode(i)
  i.seq = sequence
  storeInode(i)
  note('I', i.raw)
end
local function dropInode(i)
  recount(i, false)
  redis.call('HDEL', INODES, id(i.fileid))
  note('i', struct.pack('<I8', i.fileid))
end
local function later(s, ns)
  if nowS > s or (nowS == s and nowNs > ns) then return nowS, nowNs end
  if s >= 4294967295 and ns >= 999999999 then return s, ns end
  if ns >= 999999999 then return s + 1, 0 end
  return s, ns + 1
end
`;

/** Names: needs PUT_INODE. */
const NAMES = String.raw`
local function liveDirectory(fileid)
  local d = liveInode(fileid)
  if not d then return nil, {'stale'} end
  if d.type ~= 1 then return nil, {'not-directory', d.raw} end
  return d
end
local function readName(directory, name)
  local raw = redis.call('HGET', NAMES, directory .. '/' .. name)
  if not raw then return nil end
  local _, _, cookie, fileid = struct.unpack('<BI8I8I8', raw)
  return {cookie = cookie, fileid = fileid}
end
local function listed(directory, cookie, fileid, name) return struct.pack('>I8I8I8', directory, cookie, fileid) .. name end
local function putName(d, name, cookie, fileid)
  redis.call('HSET', NAMES, id(d.fileid) .. '/' .. name, struct.pack('<BI8I8I8', 1, sequence, cookie, fileid))
  redis.call('ZADD', LISTING, 0, listed(d.fileid, cookie, fileid, name))
  note('E', struct.pack('<I8I8I8', d.fileid, cookie, fileid) .. name)
end
local function dropName(d, name, entry)
  redis.call('HDEL', NAMES, id(d.fileid) .. '/' .. name)
  redis.call('ZREM', LISTING, listed(d.fileid, entry.cookie, entry.fileid, name))
  note('e', struct.pack('<I8', d.fileid) .. name)
end
local function isEmpty(directory)
  local from = struct.pack('>I8', directory)
  return #redis.call('ZRANGEBYLEX', LISTING, '[' .. from, '(' .. struct.pack('>I8', directory + 1), 'LIMIT', 0, 1) == 0
end
local function namedInode(directory, entry)
  local i = liveInode(id(entry.fileid))
  if i then return i end
  return nil, 3, 'an entry of directory ' .. id(directory) .. ' names ' .. id(entry.fileid) .. ', which is not a live inode'
end
local function touch(d, nlink, nextCookie)
  local before = d.raw
  d.nlink, d.nextCookie = nlink, nextCookie
  d.ms, d.mn = later(d.ms, d.mn)
  d.cs, d.cn = later(d.cs, d.cn)
  putInode(d)
  return before, d.raw
end
local function unlinkOne(i)
  i.cs, i.cn = later(i.cs, i.cn)
  if i.type ~= 1 and i.nlink > 1 then
    i.nlink = i.nlink - 1
    putInode(i)
    return i.raw
  end
  i.nlink, i.state = 0, 1
  if i.class == 2 or i.class == 3 then
    i.unlinkedMs = nowS * 1000 + math.floor(nowNs / 1000000)
    putInode(i)
    redis.call('ZADD', TOMBSTONES, id(i.fileid), id(i.fileid))
    return i.raw
  end
  i.nextCookie, i.seq = 0, sequence
  local gone = encodeInode(i)
  dropInode(i)
  return gone
end
`;

/** Owner records in memory: `raw` as read or last written; state, protection and root are opaque texts but for the root's head. */
const OWNER = String.raw`
local OWNER = '<BI8I8c32c32c32c32I8Bc128c8I4I4I4'
local function decodeOwner(raw)
  local o, _, stateLength, protectionLength, rootLength, at = {raw = raw}
  _, o.seq, o.fileid, o.uuid, o.router, o.incarnation, o.term, o.counterMax, o.moves, o.moving, o.verifier, stateLength, protectionLength, rootLength, at =
    struct.unpack(OWNER, raw)
  o.holder = o.router
  o.state = string.sub(raw, at, at + stateLength - 1)
  o.protection = string.sub(raw, at + stateLength, at + stateLength + protectionLength - 1)
  o.root = string.sub(raw, at + stateLength + protectionLength)
  return o
end
local function readOwner(fileid)
  local raw = redis.call('HGET', OWNERS, fileid)
  return raw and decodeOwner(raw)
end
`;

/** Writing owner records: needs OWNER. */
const PUT_OWNER = String.raw`
-- Of two terms' epochs: below 0, 0, above 0.
local function compareEpochs(a, b)
  local generationA, counterA = struct.unpack('<I8I8', a)
  local generationB, counterB = struct.unpack('<I8I8', b)
  if generationA ~= generationB then return generationA - generationB end
  return counterA - counterB
end
local function encodeOwner(o)
  return struct.pack(OWNER, 1, o.seq, o.fileid, o.uuid, o.router, o.incarnation, o.term, o.counterMax, o.moves, o.moving, o.verifier,
    #o.state, #o.protection, #o.root) .. o.state .. o.protection .. o.root
end
local function storeOwner(o)
  o.raw = encodeOwner(o)
  redis.call('HSET', OWNERS, id(o.fileid), o.raw)
  if o.holder ~= o.router then
    if o.holder then redis.call('ZREM', OWNED, o.holder .. struct.pack('>I8', o.fileid)) end
    redis.call('ZADD', OWNED, 0, o.router .. struct.pack('>I8', o.fileid))
    o.holder = o.router
  end
end
local function removeOwner(o)
  redis.call('HDEL', OWNERS, id(o.fileid))
  redis.call('ZREM', OWNED, o.holder .. struct.pack('>I8', o.fileid))
end
`;

/** Routers: fields of the packed record. */
const ROUTER = String.raw`
local function readRouter(router)
  local raw = redis.call('HGET', ROUTERS, router)
  if not raw then return nil end
  local _, dead, counter, incarnation, at = struct.unpack('<BBI8c32', raw)
  return {raw = raw, dead = dead == 1, counter = counter, incarnation = incarnation, rest = string.sub(raw, at)}
end
local function putRouter(router, r)
  local raw = struct.pack('<BBI8c32', 1, r.dead and 1 or 0, r.counter, r.incarnation) .. r.rest
  redis.call('HSET', ROUTERS, router, raw)
  return raw
end
`;

const PIECES = { ID, INODE, COUNT, PUT_INODE, NAMES, OWNER, PUT_OWNER, ROUTER } as const;
export type Piece = keyof typeof PIECES;

/** KEYS as Lua locals: `operationAge` becomes OPERATION_AGE. */
function localsOf(keys: readonly RedisKey[]): string {
  return keys.map((key, at) => `local ${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()} = KEYS[${at + 1}]`).join('\n');
}

/** A script that checks the generation and then runs `body`. */
export function plainScript(name: string, keys: readonly RedisKey[], pieces: readonly Piece[], body: string): VerbScript {
  const all: readonly RedisKey[] = ['meta', ...keys];
  const source = `${localsOf(all)}
local generation = redis.call('HGET', META, 'generation')
if generation ~= ARGV[1] then return {err = 'GENERATION ' .. (generation or 'none')} end
${pieces.map((piece) => PIECES[piece]).join('')}
${body}`;
  return { name, keys: all, source };
}

/** A script without the frame's check of the generation: those of recovery rounds and of creation. */
export function bareScript(name: string, keys: readonly RedisKey[], pieces: readonly Piece[], body: string): VerbScript {
  const all: readonly RedisKey[] = ['meta', ...keys];
  return { name, keys: all, source: `${localsOf(all)}\n${pieces.map((piece) => PIECES[piece]).join('')}\n${body}` };
}

/** Keys that the frame of a mutation touches besides meta. */
const FRAME_KEYS: readonly RedisKey[] = ['living', 'operations', 'operationAge', 'operationClients'];

/** Longer than this an outcome is remembered only while it is among the last OPERATIONS_PER_CLIENT of its client. */
const OPERATION_KEPT_MS = 15 * 60_000;
const OPERATIONS_PER_CLIENT = 1_024;
/** The same for what routers change by themselves. */
const INTERNAL_KEPT_MS = 60_000;
const OPERATIONS_PER_ROUTER = 64;

/**
 * A mutating verb in its frame. ARGV: 1 generation; 2 incarnation; 3 `<verb> <operation id>` or empty; 4, 5 the caller's clock in seconds and nanoseconds;
 * 6 not-after time in milliseconds of this Redis's clock, or empty; 7 the caller's wall clock in whole milliseconds; from 8 on the verb's own.
 *
 * `body` is the inside of a function: it answers a list of the outcome's kind and its fields as packed records, or nil, a status and a message. In its
 * reach: `router` (the caller's), `sequence` (this change's, if it is one), nowS, nowNs, `note(kind, packed)` for the after-image, `nextFileid`.
 *
 * Reply: {status, Redis's clock in ms, generation, sequence or 0, outcome, changes}, or {status, clock, message}.
 */
export function verbScript(name: string, keys: readonly RedisKey[], pieces: readonly Piece[], body: string): VerbScript {
  return plainScript(
    name,
    [...FRAME_KEYS, ...keys],
    [],
    String.raw`
local clock = redis.call('TIME')
local clockMs = clock[1] * 1000 + math.floor(clock[2] / 1000)
local router = redis.call('HGET', LIVING, ARGV[2])
if not router then return {1, clockMs, ''} end
local operation, wallMs = ARGV[3], tonumber(ARGV[7])
-- Clients that begin with ~ are routers with changes of their own: nobody asks for them after some seconds.
local function clientKey(field) return string.match(field, '^%S+ ([^|]*)') .. '\0' end
local REMEMBERED = '<I8I8I8I8I4'
local meta = redis.call('HMGET', META, 'sequence', 'next_fileid', 'inodes', 'used_bytes', 'ordinal', 'operations_max', 'operation_bytes', 'operation_bytes_max')
local ordinal = tonumber(meta[5])
local stored = operation ~= '' and redis.call('HGET', OPERATIONS, operation)
if stored then
  local _, then_, itsSequence, itsGeneration, length, at = struct.unpack(REMEMBERED, stored)
  local outcome, changes = string.sub(stored, at, at + length - 1), string.sub(stored, at + length)
  ordinal = redis.call('HINCRBY', META, 'ordinal', 1)
  local client = clientKey(operation)
  redis.call('HSET', OPERATIONS, operation, struct.pack(REMEMBERED, wallMs, ordinal, itsSequence, itsGeneration, length) .. outcome .. changes)
  redis.call('ZADD', OPERATION_AGE, ordinal, operation)
  redis.call('ZREM', OPERATION_CLIENTS, client .. struct.pack('>I8', then_))
  redis.call('ZADD', OPERATION_CLIENTS, 0, client .. struct.pack('>I8', ordinal))
  return {0, clockMs, itsGeneration, itsSequence, outcome, changes}
end
if ARGV[6] ~= '' and clockMs > tonumber(ARGV[6]) then return {2, clockMs, ''} end

local sequence, nextFileid, inodes, used = tonumber(meta[1]) + 1, tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])
local nowS, nowNs = tonumber(ARGV[4]), tonumber(ARGV[5])
local changes, noted = {}, {}
local function note(kind, packed)
  changes[#changes + 1] = struct.pack('<I4', #packed + 1) .. kind .. packed
  noted[packed] = #changes
end
${ID}${pieces.map((piece) => PIECES[piece]).join('')}
local function verb()
${body}
end
local parts, status, message = verb()
if not parts then return {status, clockMs, message} end

for at = 1, #parts do
  local part = parts[at]
  local known = noted[part]
  parts[at] = known and struct.pack('<I4', 2147483648 + known) or struct.pack('<I4', #part) .. part
end
local outcome, image = table.concat(parts), table.concat(changes)
if #changes == 0 then sequence = 0 end
-- Counters before all else: a change that is made has its number, whatever may go wrong with the memory.
local counters = {}
if operation ~= '' then
  ordinal = ordinal + 1
  counters = {'ordinal', id(ordinal)}
end
if sequence > 0 then counters[#counters + 1] = 'sequence'; counters[#counters + 1] = id(sequence) end
if nextFileid ~= tonumber(meta[2]) then counters[#counters + 1] = 'next_fileid'; counters[#counters + 1] = id(nextFileid) end
if inodes ~= tonumber(meta[3]) then counters[#counters + 1] = 'inodes'; counters[#counters + 1] = id(inodes) end
if used ~= tonumber(meta[4]) then counters[#counters + 1] = 'used_bytes'; counters[#counters + 1] = id(used) end
if #counters > 0 then redis.call('HSET', META, unpack(counters)) end
if operation ~= '' then
  local client = clientKey(operation)
  local value = struct.pack(REMEMBERED, wallMs, ordinal, sequence, tonumber(generation), #outcome) .. outcome .. image
  local bytes = #operation + #value
  redis.call('HSET', OPERATIONS, operation, value)
  redis.call('ZADD', OPERATION_AGE, ordinal, operation)
  redis.call('ZADD', OPERATION_CLIENTS, 0, client .. struct.pack('>I8', ordinal))
  local function forget(field, its)
    bytes = bytes - #field - redis.call('HSTRLEN', OPERATIONS, field)
    redis.call('HDEL', OPERATIONS, field)
    redis.call('ZREM', OPERATION_AGE, field)
    redis.call('ZREM', OPERATION_CLIENTS, clientKey(field) .. struct.pack('>I8', its))
  end
  -- Once in sixteen operations, up to 32 of the oldest: that keeps up, and costs little.
  if ordinal % 16 == 0 then
    local from, to = '[' .. client, '(' .. string.sub(client, 1, -2) .. '\1'
    local internal = string.sub(client, 1, 1) == '~'
    local excess = redis.call('ZLEXCOUNT', OPERATION_CLIENTS, from, to) - (internal and ${OPERATIONS_PER_ROUTER} or ${OPERATIONS_PER_CLIENT})
    if excess > 0 then
      for _, member in ipairs(redis.call('ZRANGEBYLEX', OPERATION_CLIENTS, from, to, 'LIMIT', 0, math.min(excess, 32))) do
        local its = struct.unpack('>I8', string.sub(member, -8))
        local field = redis.call('ZRANGEBYSCORE', OPERATION_AGE, id(its), id(its))[1]
        local known = field and redis.call('HGET', OPERATIONS, field)
        if not known then
          redis.call('ZREM', OPERATION_CLIENTS, member)
        elseif struct.unpack('<I8', known) > wallMs - (internal and ${INTERNAL_KEPT_MS} or ${OPERATION_KEPT_MS}) then break
        else forget(field, its) end
      end
    end
  end
  -- At a bound the oldest of all go, a few at a time.
  local kept, bytesMax = tonumber(meta[7]), tonumber(meta[8])
  local excess = redis.call('HLEN', OPERATIONS) - tonumber(meta[6])
  if excess > 0 or kept + bytes > bytesMax then
    local oldest = redis.call('ZRANGE', OPERATION_AGE, 0, 15, 'WITHSCORES')
    for at = 1, #oldest, 2 do
      if excess <= 0 and kept + bytes <= bytesMax then break end
      forget(oldest[at], tonumber(oldest[at + 1]))
      excess = excess - 1
    end
  end
  redis.call('HSET', META, 'operation_bytes', id(kept + bytes))
end
return {0, clockMs, tonumber(generation), sequence, outcome, image}
`,
  );
}
