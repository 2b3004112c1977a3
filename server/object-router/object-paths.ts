/** Paths of objects, for reports: the registry finds an inode by number or by name, not a name by object, so the tree is walked. */
import type { Namespace } from '../../registry/ports.ts';
import type { FileId } from '../core/ids.ts';

const PAGE = 200;

/**
 * First path found of each wanted object (`/directory/name`, bytes that are no UTF-8 replaced). Looks at `entriesMax` names and then gives up: a report
 * is not worth a walk through millions.
 */
export async function objectPaths(namespace: Namespace, wanted: ReadonlySet<string>, entriesMax: number): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const directories: { readonly fileid: FileId; readonly path: string }[] = [{ fileid: namespace.root, path: '' }];
  let seen = 0;
  for (let directory = directories.shift(); directory !== undefined && found.size < wanted.size; directory = directories.shift()) {
    for (let cookie = 0; seen < entriesMax;) {
      const page = await namespace.entries(directory.fileid, cookie, PAGE);
      // Removed meanwhile.
      if (page.kind !== 'entries') break;
      for (const { name, inode } of page.entries) {
        const path = `${directory.path}/${Buffer.from(name).toString('utf8')}`;
        if (inode.type === 'directory') directories.push({ fileid: inode.fileid, path });
        else if (inode.uuid !== null && wanted.has(inode.uuid) && !found.has(inode.uuid)) found.set(inode.uuid, path);
      }
      seen += page.entries.length;
      const last = page.entries.at(-1);
      if (last === undefined || page.eof) break;
      cookie = last.cookie;
      // The NFS loop goes first.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return found;
}
