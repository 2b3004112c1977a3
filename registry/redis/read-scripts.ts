/** Scripts that change nothing. Packed records go out as they are; the router decodes them. */
import { plainScript } from './lua-pieces.ts';

/** Lua's `unpack` takes a few thousand values at once. */
const FIELDS_PER_CALL = 1_000;

/** ARGV: 2 fileid. Reply: packed inode (unlinked ones too) or nil. */
export const INODE_SCRIPT = plainScript('inode', ['inodes'], [], `return redis.call('HGET', INODES, ARGV[2])`);

/** ARGV: 2 directory, 3 name. Reply: {packed directory or nil, packed inode or nil, 1 if there is an entry}. */
export const LOOKUP_SCRIPT = plainScript(
  'lookup',
  ['inodes', 'names'],
  ['ID'],
  String.raw`
local d = redis.call('HGET', INODES, ARGV[2])
local entry = d and redis.call('HGET', NAMES, ARGV[2] .. '/' .. ARGV[3])
if not entry then return {d, false, 0} end
local _, _, _, fileid = struct.unpack('<BI8I8I8', entry)
return {d, redis.call('HGET', INODES, id(fileid)), 1}
`,
);

/** ARGV: 2 directory, 3 its number (8 bytes, big-endian), 4 the first cookie (likewise), 5 most entries. Reply: {packed directory or nil, members, packed inodes}. */
export const ENTRIES_SCRIPT = plainScript(
  'entries',
  ['inodes', 'listing'],
  ['ID'],
  String.raw`
local d = redis.call('HGET', INODES, ARGV[2])
if not d then return {false, {}, {}} end
local members = redis.call('ZRANGEBYLEX', LISTING, '[' .. ARGV[3] .. ARGV[4], '[' .. ARGV[3] .. string.rep('\255', 9), 'LIMIT', 0, ARGV[5])
local inodes = {}
for from = 1, #members, ${FIELDS_PER_CALL} do
  local fields = {}
  for at = from, math.min(from + ${FIELDS_PER_CALL} - 1, #members) do
    fields[#fields + 1] = id((struct.unpack('>I8', members[at], 17)))
  end
  for _, raw in ipairs(redis.call('HMGET', INODES, unpack(fields))) do inodes[#inodes + 1] = raw or '' end
end
return {d, members, inodes}
`,
);

/** ARGV: 2 fileid before the first, 3 limit. Reply: packed inodes. */
export const TOMBSTONES_SCRIPT = plainScript(
  'tombstones',
  ['inodes', 'tombstones'],
  [],
  String.raw`
local found = {}
for _, fileid in ipairs(redis.call('ZRANGEBYSCORE', TOMBSTONES, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = redis.call('HGET', INODES, fileid) or ''
end
return found
`,
);

/** Reply: {generation, sequence, inodes, used bytes, Redis's clock in ms}, the first four as text. */
export const COUNTERS_SCRIPT = plainScript(
  'counters',
  [],
  [],
  String.raw`
local clock = redis.call('TIME')
local found = redis.call('HMGET', META, 'generation', 'sequence', 'inodes', 'used_bytes')
found[5] = clock[1] * 1000 + math.floor(clock[2] / 1000)
return found
`,
);

/** A page of one of the keys. ARGV: 2 cursor. Reply: {cursor, fields and values in turns}. */
export const SCAN_SCRIPTS = {
  inodes: plainScript('scanInodes', ['inodes'], [], `return redis.call('HSCAN', INODES, ARGV[2], 'COUNT', 500)`),
  names: plainScript('scanNames', ['names'], [], `return redis.call('HSCAN', NAMES, ARGV[2], 'COUNT', 500)`),
  owners: plainScript('scanOwners', ['owners'], [], `return redis.call('HSCAN', OWNERS, ARGV[2], 'COUNT', 500)`),
  listing: plainScript('scanListing', ['listing'], [], `return redis.call('ZSCAN', LISTING, ARGV[2], 'COUNT', 500)`),
  owned: plainScript('scanOwned', ['owned'], [], `return redis.call('ZSCAN', OWNED, ARGV[2], 'COUNT', 500)`),
  tombstones: plainScript('scanTombstones', ['tombstones'], [], `return redis.call('ZSCAN', TOMBSTONES, ARGV[2], 'COUNT', 500)`),
  operations: plainScript('scanOperations', ['operations'], [], `return redis.call('HSCAN', OPERATIONS, ARGV[2], 'COUNT', 100)`),
} as const;

/** Reply: {next_fileid as text, remembered operations, members of operation-age, members of operation-clients, operation_bytes as text}. */
export const SIZES_SCRIPT = plainScript(
  'sizes',
  ['operations', 'operationAge', 'operationClients'],
  [],
  String.raw`
return {redis.call('HGET', META, 'next_fileid'), redis.call('HLEN', OPERATIONS), redis.call('ZCARD', OPERATION_AGE), redis.call('ZCARD', OPERATION_CLIENTS),
  redis.call('HGET', META, 'operation_bytes')}
`,
);
