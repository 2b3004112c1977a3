/** Verbs on names: create, link, remove, rename. Semantics in ports.ts; `registry/sqlite/` is the reference. */
import { verbScript } from './lua-pieces.ts';
import type { RedisKey } from './redis-keys.ts';

const TREE: readonly RedisKey[] = ['inodes', 'names', 'listing', 'tombstones'];
const PIECES = ['INODE', 'COUNT', 'PUT_INODE', 'NAMES'] as const;

/** Names of one file; PATHCONF says so too. */
const LINK_MAX = 32_000;
/** Deeper trees are refused as corrupt: only a cycle has no end. A script of so many steps takes about a second. */
const DEPTH_MAX = 1_000_000;

/** createFile, createDirectory, createSymlink. ARGV: 8 directory, 9 name, 10 the inode, packed, but for fileid and sequence. */
export const CREATE_SCRIPT = verbScript(
  'create',
  TREE,
  PIECES,
  String.raw`
  local name = ARGV[9]
  local d, refused = liveDirectory(ARGV[8])
  if not d then return refused end
  local taken = readName(ARGV[8], name)
  if taken then
    local i, status, message = namedInode(d.fileid, taken)
    if not i then return nil, status, message end
    return {'exists', i.raw, d.raw}
  end
  if nextFileid >= 9007199254740991 then return nil, 5, '' end
  local i = decodeInode(ARGV[10])
  i.fileid, i.counted = nextFileid, nil
  nextFileid = nextFileid + 1
  local cookie = d.nextCookie
  putInode(i)
  putName(d, name, cookie, i.fileid)
  local before, after = touch(d, d.nlink + (i.type == 1 and 1 or 0), cookie + 1)
  return {'created', i.raw, before, after}
`,
);

/** ARGV: 8 object, 9 directory, 10 name. */
export const LINK_SCRIPT = verbScript(
  'link',
  TREE,
  PIECES,
  String.raw`
  local i = liveInode(ARGV[8])
  if not i then return {'object-stale'} end
  local d, refused = liveDirectory(ARGV[9])
  if not d then return refused end
  if i.type == 1 then return {'is-directory', d.raw} end
  local taken = readName(ARGV[9], ARGV[10])
  if taken then
    local other, status, message = namedInode(d.fileid, taken)
    if not other then return nil, status, message end
    return {'exists', other.raw, d.raw}
  end
  if i.nlink >= ${LINK_MAX} then return {'too-many-links', d.raw} end
  local cookie = d.nextCookie
  i.nlink = i.nlink + 1
  i.cs, i.cn = later(i.cs, i.cn)
  putInode(i)
  putName(d, ARGV[10], cookie, i.fileid)
  local before, after = touch(d, d.nlink, cookie + 1)
  return {'linked', i.raw, before, after}
`,
);

/** remove and removeDirectory. ARGV: 8 directory, 9 name, 10 "1" for removeDirectory. */
export const REMOVE_SCRIPT = verbScript(
  'remove',
  TREE,
  PIECES,
  String.raw`
  local wanted = ARGV[10] == '1'
  local d, refused = liveDirectory(ARGV[8])
  if not d then return refused end
  local entry = readName(ARGV[8], ARGV[9])
  if not entry then return {'absent', d.raw} end
  local i, status, message = namedInode(d.fileid, entry)
  if not i then return nil, status, message end
  if i.type == 1 and not wanted then return {'is-directory', d.raw} end
  if i.type ~= 1 and wanted then return {'not-a-directory', d.raw} end
  if wanted and not isEmpty(i.fileid) then return {'not-empty', d.raw} end
  dropName(d, ARGV[9], entry)
  local gone = unlinkOne(i)
  local before, after = touch(d, d.nlink - (wanted and 1 or 0), d.nextCookie)
  return {'removed', gone, before, after}
`,
);

/** ARGV: 8 from directory, 9 from name, 10 to directory, 11 to name. */
export const RENAME_SCRIPT = verbScript(
  'rename',
  TREE,
  PIECES,
  String.raw`
  local from, refused = liveDirectory(ARGV[8])
  if not from then return {refused[1], 'from'} end
  local same = ARGV[8] == ARGV[10]
  local to = from
  if not same then
    to, refused = liveDirectory(ARGV[10])
    if not to then return {refused[1], 'to'} end
  end
  local source = readName(ARGV[8], ARGV[9])
  if not source then return {'absent', from.raw, to.raw} end
  local target = readName(ARGV[10], ARGV[11])
  if target and target.fileid == source.fileid then return {'unchanged', from.raw, to.raw} end
  local moved, status, message = namedInode(from.fileid, source)
  if not moved then return nil, status, message end
  local isDirectory = moved.type == 1
  if isDirectory and not same then
    local current, depth = to, 0
    while current.fileid ~= moved.fileid and current.parent ~= current.fileid do
      depth = depth + 1
      if depth > ${DEPTH_MAX} then return nil, 3, 'the parents of directory ' .. ARGV[10] .. ' form a cycle' end
      local parent = current.parent
      current = liveInode(id(parent))
      if not current or current.type ~= 1 then return nil, 3, 'directory ' .. id(parent) .. ', a parent, is not a live directory' end
    end
    if current.fileid == moved.fileid then return {'invalid', from.raw, to.raw} end
  end
  local replaced
  if target then
    replaced, status, message = namedInode(to.fileid, target)
    if not replaced then return nil, status, message end
    if (replaced.type == 1) ~= isDirectory then return {'target-exists', from.raw, to.raw} end
    if isDirectory and not isEmpty(replaced.fileid) then return {'target-not-empty', from.raw, to.raw} end
  end

  dropName(from, ARGV[9], source)
  local gone = ''
  if target then
    dropName(to, ARGV[11], target)
    gone = unlinkOne(replaced)
  end
  -- A name that stays keeps its cookie: a listing in progress must not miss it.
  local cookie = target and target.cookie or to.nextCookie
  putName(to, ARGV[11], cookie, moved.fileid)
  local nextCookie = target and to.nextCookie or cookie + 1
  moved.cs, moved.cn = later(moved.cs, moved.cn)
  moved.parent = isDirectory and to.fileid or 0
  putInode(moved)
  local lost = isDirectory and 1 or 0
  local gained = isDirectory and not target and 1 or 0
  local fromBefore, fromAfter, toBefore, toAfter
  if same then
    fromBefore, fromAfter = touch(from, from.nlink - lost + gained, nextCookie)
    toBefore, toAfter = fromBefore, fromAfter
  else
    fromBefore, fromAfter = touch(from, from.nlink - lost, from.nextCookie)
    toBefore, toAfter = touch(to, to.nlink + gained, nextCookie)
  end
  return {'renamed', moved.raw, fromBefore, fromAfter, toBefore, toAfter, gone}
`,
);
