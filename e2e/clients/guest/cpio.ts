/** Writes the `newc` cpio archives that the Linux kernel unpacks as its initramfs (Documentation/driver-api/early-userspace/buffer-format.rst). */

export type ArchiveEntry =
  | { readonly kind: 'file'; readonly path: string; readonly content: Uint8Array | string; readonly executable?: boolean }
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | { readonly kind: 'character-device'; readonly path: string; readonly major: number; readonly minor: number };

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** One archive, padded so that another one may follow it. Paths are relative, directories before what is in them. */
export function cpioArchive(entries: readonly ArchiveEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    switch (entry.kind) {
      case 'file':
        parts.push(...member(index + 1, entry.path, S_IFREG | (entry.executable === true ? 0o755 : 0o644), Buffer.from(entry.content), 0, 0));
        break;
      case 'directory':
        parts.push(...member(index + 1, entry.path, S_IFDIR | 0o755, Buffer.alloc(0), 0, 0));
        break;
      case 'symlink':
        parts.push(...member(index + 1, entry.path, S_IFLNK | 0o777, Buffer.from(entry.target), 0, 0));
        break;
      case 'character-device':
        parts.push(...member(index + 1, entry.path, S_IFCHR | 0o600, Buffer.alloc(0), entry.major, entry.minor));
        break;
    }
  });
  parts.push(...member(0, 'TRAILER!!!', 0, Buffer.alloc(0), 0, 0));
  return Buffer.concat(parts);
}

function member(inode: number, path: string, mode: number, content: Uint8Array, major: number, minor: number): Buffer[] {
  const name = Buffer.from(`${path}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, '0')).join('')}`);
  return [header, name, padding(header.length + name.length), Buffer.from(content), padding(content.length)];
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
