import { closeSync, fsyncSync, openSync } from 'node:fs';

/** fsync of a file or directory. */
export function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
