/** Verbs on one inode: attributes, inline contents, the flip to class file, tombstones. */
import { verbScript } from './lua-pieces.ts';

const PIECES = ['INODE', 'COUNT', 'PUT_INODE'] as const;

/** Stored bytes in whole sectors, as FATTR3 `used` says it. */
const SECTORS = 'math.ceil(#i.inline / 512) * 512';

/**
 * ARGV: 8 fileid; 9 guard ctime (8 bytes) or empty; 10 class expected or empty; 11 mode, 12 uid, 13 gid, 14 size, each empty to leave;
 * 15 atime, 16 mtime (8 bytes) or empty; 17 limit of inline bytes.
 */
export const SET_ATTRIBUTES_SCRIPT = verbScript(
  'setAttributes',
  ['inodes'],
  PIECES,
  String.raw`
  local i = liveInode(ARGV[8])
  if not i then return {'stale'} end
  local before = i.raw
  if ARGV[9] ~= '' and ARGV[9] ~= struct.pack('<I4I4', i.cs, i.cn) then return {'guard-mismatch', before} end
  if ARGV[10] ~= '' and tonumber(ARGV[10]) ~= i.class then return {'class-changed', before} end
  local size = tonumber(ARGV[14])
  if size and (i.class ~= 1 or size > tonumber(ARGV[17])) then return {'class-changed', before} end
  if ARGV[11] .. ARGV[12] .. ARGV[13] .. ARGV[14] .. ARGV[15] .. ARGV[16] == '' then return {'changed', before, before} end
  if size then
    i.inline = string.sub(i.inline, 1, size)
    i.used, i.size = ${SECTORS}, size
    i.ms, i.mn = later(i.ms, i.mn)
  end
  i.mode = tonumber(ARGV[11]) or i.mode
  i.uid = tonumber(ARGV[12]) or i.uid
  i.gid = tonumber(ARGV[13]) or i.gid
  if ARGV[15] ~= '' then i.as, i.an = struct.unpack('<I4I4', ARGV[15]) end
  if ARGV[16] ~= '' then i.ms, i.mn = struct.unpack('<I4I4', ARGV[16]) end
  i.cs, i.cn = later(i.cs, i.cn)
  putInode(i)
  return {'changed', before, i.raw}
`,
);

/** ARGV: 8 fileid, 9 offset, 10 bytes (not more than the limit + 1), 11 limit of inline bytes. */
export const WRITE_INLINE_SCRIPT = verbScript(
  'writeInline',
  ['inodes'],
  PIECES,
  String.raw`
  local i = liveInode(ARGV[8])
  if not i then return {'stale'} end
  local before, offset, bytes = i.raw, tonumber(ARGV[9]), ARGV[10]
  if i.class ~= 1 then return {'class-changed', before} end
  if #bytes == 0 then return {'written', before, before} end
  local last = offset + #bytes
  if last > tonumber(ARGV[11]) then return {'too-large', before} end
  local old = i.inline
  if #old < offset then old = old .. string.rep('\0', offset - #old) end
  i.inline = string.sub(old, 1, offset) .. bytes .. string.sub(old, last + 1)
  i.used = ${SECTORS}
  if last > i.size then i.size = last end
  i.ms, i.mn = later(i.ms, i.mn)
  i.cs, i.cn = later(i.cs, i.cn)
  putInode(i)
  return {'written', before, i.raw}
`,
);

/** ARGV: 8 fileid. */
export const FLIP_SCRIPT = verbScript(
  'flipToFile',
  ['inodes'],
  PIECES,
  String.raw`
  local i = liveInode(ARGV[8])
  if not i then return {'stale'} end
  local before = i.raw
  if i.class == 2 then return {'changed', before, before} end
  if i.class ~= 1 then return {'class-changed', before} end
  i.class = 2
  putInode(i)
  return {'changed', before, i.raw}
`,
);

/** ARGV: 8 fileid, 9 term. */
export const DROP_INLINE_BASE_SCRIPT = verbScript(
  'dropInlineBase',
  ['inodes', 'owners'],
  [...PIECES, 'OWNER'],
  String.raw`
  local i = liveInode(ARGV[8])
  if not i or i.class ~= 2 or not i.hasInline then return {} end
  local o = readOwner(ARGV[8])
  if not o or o.term ~= ARGV[9] then return {} end
  i.hasInline, i.inline = false, ''
  putInode(i)
  return {}
`,
);

/** Bytes of one element of the batch of PUT_OWNED_SCRIPT. */
export const OWNED_ATTRIBUTES_BYTES = 80;

/** ARGV: 8 the batch: fileid, term, size, used, atime, mtime, ctime of each. Not noted: no change of the namespace. */
export const PUT_OWNED_SCRIPT = verbScript(
  'putOwnedAttributes',
  ['inodes', 'owners'],
  [...PIECES, 'OWNER'],
  String.raw`
  local batch = ARGV[8]
  for at = 1, #batch, ${OWNED_ATTRIBUTES_BYTES} do
    local fileid, term, copyAt = struct.unpack('<I8c32', batch, at)
    local i = liveInode(id(fileid))
    local o = i and readOwner(id(fileid))
    if o and o.term == term then
      takeCopy(i, batch, copyAt)
      storeInode(i)
    end
  end
  return {}
`,
);

/** ARGV: 8 fileid. */
export const DROP_TOMBSTONE_SCRIPT = verbScript(
  'dropTombstone',
  ['inodes', 'owners', 'owned', 'tombstones'],
  [...PIECES, 'OWNER', 'PUT_OWNER'],
  String.raw`
  local i = readInode(ARGV[8])
  if not i or i.state ~= 1 then return {} end
  dropInode(i)
  redis.call('ZREM', TOMBSTONES, ARGV[8])
  local o = readOwner(ARGV[8])
  if o then
    removeOwner(o)
    note('o', struct.pack('<I8', o.fileid))
  end
  return {}
`,
);
