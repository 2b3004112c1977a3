/** Claim, move and update of owner records: compare-and-set on the term (32 bytes, compared as they are). */
import { CLOSED_EPOCHS_MAX } from '../owner-record.ts';
import { plainScript, verbScript } from './lua-pieces.ts';
import { CLOSED_EPOCH_BYTES, packProtection, ROOT_HEAD_BYTES } from './packed-owner.ts';

const KEYS = ['inodes', 'owners', 'owned'] as const;
const PIECES = ['INODE', 'OWNER', 'PUT_OWNER'] as const;
/** Protection `clean` as it is packed, as a Lua string. */
const CLEAN = `'${packProtection({ kind: 'clean' })}'`;

const COMMON = String.raw`
  local function held(fileid)
    return liveInode(fileid) and readOwner(fileid)
  end
  local function put(o)
    o.seq = sequence
    storeOwner(o)
    note('O', o.raw)
    return {'done', o.raw}
  end
  local NOT_MOVING = string.rep('\0', 128)
  -- A closed epoch more at the end of a root; nil when there are too many.
  local function closed(root, closing)
    local checkpointLength = struct.unpack('<I4', root, 17)
    if checkpointLength == 4294967295 then checkpointLength = 0 end
    if (#root - ${ROOT_HEAD_BYTES} - checkpointLength) / ${CLOSED_EPOCH_BYTES} >= ${CLOSED_EPOCHS_MAX} then return nil end
    return root .. closing
  end
`;

/**
 * ARGV: 8 fileid; 9 router; 10 term expected or empty; 11 epoch to close (term, last segment, last sequence) or empty; 12 nonce; 13 the counter that the
 * new term's must be above; 14 verifier of a new volume; 15 state, 16 protection, 17 root of a new record.
 */
export const CLAIM_SCRIPT = verbScript(
  'claim',
  [...KEYS, 'routers'],
  [...PIECES, 'ROUTER'],
  String.raw`${COMMON}
  local i = liveInode(ARGV[8])
  if not i then return {'gone'} end
  if i.class ~= 2 and i.class ~= 3 then return nil, 4, 'inode ' .. ARGV[8] .. ' of this class has no owner' end
  if router ~= ARGV[9] then return nil, 4, 'a router claims for itself' end
  local expected, closing = ARGV[10], ARGV[11]
  local o = readOwner(ARGV[8])
  if not o then
    -- Nobody removes the owner record of a live inode: this Redis forgot it, and with it the root.
    if expected ~= '' then return nil, 6, 'there is no owner record of inode ' .. ARGV[8] .. ', but a term of it was seen' end
    if closing ~= '' then return nil, 4, 'there is no old term to close' end
  elseif o.term ~= expected then
    return {'conflict', o.raw}
  elseif o.router ~= router and redis.call('HGET', LIVING, o.incarnation) then
    return {'owner-alive', o.raw}
  end
  local counter = math.max(o and o.counterMax or 0, tonumber(ARGV[13])) + 1
  if not o then
    -- The uuid is behind the verifier of EXCLUSIVE create, if there is one.
    local uuid = string.sub(i.fixed, i.flags % 2 == 1 and 9 or 1, i.flags % 2 == 1 and 40 or 32)
    local verifier = ARGV[14]
    if i.class == 2 then verifier = string.gsub(string.sub(uuid, 1, 16), '..', function(hex) return string.char(tonumber(hex, 16)) end) end
    o = {fileid = i.fileid, uuid = uuid, verifier = verifier, protection = ARGV[16], root = ARGV[17]}
  end
  local root = closing == '' and o.root or closed(o.root, closing)
  if not root then return nil, 5, 'the owner record of inode ' .. ARGV[8] .. ' has too many closed epochs' end
  o.root, o.router, o.incarnation, o.counterMax = root, router, ARGV[2], counter
  o.term = struct.pack('<I8I8', tonumber(generation), counter) .. ARGV[12]
  o.state, o.moves, o.moving = ARGV[15], 0, NOT_MOVING
  return put(o)
`,
);

/** ARGV: 8 fileid, 9 term, 10 router that it goes to, 11 nonce. */
export const BEGIN_MOVE_SCRIPT = verbScript(
  'beginMove',
  [...KEYS, 'routers'],
  [...PIECES, 'ROUTER'],
  String.raw`${COMMON}
  local o = held(ARGV[8])
  if not o then return {'gone'} end
  if o.term ~= ARGV[9] or o.incarnation ~= ARGV[2] then return {'conflict', o.raw} end
  if o.router == ARGV[10] then return nil, 4, 'an object moves to another router' end
  local receiver = readRouter(ARGV[10])
  o.counterMax = o.counterMax + 1
  o.moves = 1
  o.moving = o.router .. ARGV[10] .. struct.pack('<I8I8', tonumber(generation), o.counterMax) .. ARGV[11]
    .. (receiver and not receiver.dead and receiver.incarnation or string.rep('\0', 32))
  return put(o)
`,
);

/** ARGV: 8 fileid, 9 term, 10 term of the attempt, 11 epoch to close or empty, 12 protection, 13 state. */
export const TRANSFER_SCRIPT = verbScript(
  'transfer',
  [...KEYS, 'routers'],
  [...PIECES, 'ROUTER'],
  String.raw`${COMMON}
  local o = held(ARGV[8])
  if not o then return {'gone'} end
  if o.term ~= ARGV[9] or o.incarnation ~= ARGV[2] then return {'conflict', o.raw} end
  if o.moves == 0 or string.sub(o.moving, 65, 96) ~= ARGV[10] then return {'conflict', o.raw} end
  local to = string.sub(o.moving, 33, 64)
  local receiver = readRouter(to)
  if not receiver or receiver.dead or receiver.incarnation ~= string.sub(o.moving, 97) then return {'conflict', o.raw} end
  local root = ARGV[11] == '' and o.root or closed(o.root, ARGV[11])
  if not root then return nil, 5, 'the owner record of inode ' .. ARGV[8] .. ' has too many closed epochs' end
  o.root, o.router, o.incarnation, o.term = root, to, receiver.incarnation, ARGV[10]
  o.protection, o.state, o.moves, o.moving = ARGV[12], ARGV[13], 0, NOT_MOVING
  return put(o)
`,
);

/** ARGV: 8 fileid; 9 term; each empty to leave: 10 root, 11 state, 12 protection, 13 verifier, 14 moving ("-": null), 15 size, used, atime, mtime, ctime. */
export const UPDATE_SCRIPT = verbScript(
  'update',
  KEYS,
  [...PIECES, 'COUNT', 'PUT_INODE'],
  String.raw`${COMMON}
  local o = held(ARGV[8])
  if not o then return {'gone'} end
  if o.term ~= ARGV[9] then return {'conflict', o.raw} end
  if ARGV[10] ~= '' then
    if struct.unpack('<I8', ARGV[10]) < struct.unpack('<I8', o.root) then return {'conflict', o.raw} end
    o.root = ARGV[10]
  end
  if ARGV[11] ~= '' then o.state = ARGV[11] end
  if ARGV[12] ~= '' then o.protection = ARGV[12] end
  if ARGV[13] ~= '' then o.verifier = ARGV[13] end
  if ARGV[14] == '-' then o.moves, o.moving = 0, NOT_MOVING
  elseif ARGV[14] ~= '' and string.sub(ARGV[14], 1, 96) ~= string.sub(o.moving, 1, 96) then o.moves, o.moving = 1, ARGV[14] end
  -- A number reserved for a move is never given out again, whatever becomes of the move.
  if o.moves == 1 then
    local _, counter = struct.unpack('<I8I8', o.moving, 65)
    o.counterMax = math.max(o.counterMax, counter)
  end
  local i = liveInode(ARGV[8])
  if ARGV[15] ~= '' then takeCopy(i, ARGV[15], 1) end
  -- Noted when the object is clean: from here on the record is all that is asked.
  if ARGV[12] == ${CLEAN} then putInode(i) elseif ARGV[15] ~= '' then storeInode(i) end
  return put(o)
`,
);

/** ARGV: 2 fileid. Reply: packed owner or nil. */
export const OWNER_SCRIPT = plainScript('owner', ['owners'], [], `return redis.call('HGET', OWNERS, ARGV[2])`);

/** ARGV: 2 router, 3 the fileid before the first (8 bytes, big-endian), 4 limit. Reply: packed owners. */
export const OWNED_BY_SCRIPT = plainScript(
  'ownedBy',
  ['owners', 'owned'],
  ['ID'],
  String.raw`
local from, to = '(' .. ARGV[2] .. ARGV[3], '[' .. ARGV[2] .. string.rep('\255', 8)
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', OWNED, from, to, 'LIMIT', 0, ARGV[4])) do
  found[#found + 1] = redis.call('HGET', OWNERS, id(struct.unpack('>I8', string.sub(member, 33))))
end
return found
`,
);
