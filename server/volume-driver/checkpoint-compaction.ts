/** When checkpoint objects hold so much that is superseded that pages are worth writing again. */

/** Total bytes may be twice the live ones plus this. */
export const COMPACTION_SLACK_BYTES = 16 * 2 ** 20;

export interface CheckpointUse {
  readonly row: number;
  /** Bytes of page images that are still referenced. */
  readonly liveBytes: number;
  readonly sizeBytes: number;
}

/**
 * Rows whose pages the next checkpoint should write anew, the emptiest first, until the rule holds: total <= 2 live + 16 MiB.
 * Rewriting keeps the live bytes and frees the whole object. Never asks for an object that is full of live pages.
 */
export function chooseRewrites(objects: readonly CheckpointUse[]): ReadonlySet<number> {
  let totalBytes = 0;
  let liveBytes = 0;
  for (const object of objects) {
    totalBytes += object.sizeBytes;
    liveBytes += object.liveBytes;
  }
  const chosen = new Set<number>();
  const emptiestFirst = [...objects].sort((a, b) => a.liveBytes / a.sizeBytes - b.liveBytes / b.sizeBytes);
  for (const object of emptiestFirst) {
    if (totalBytes <= 2 * liveBytes + COMPACTION_SLACK_BYTES) break;
    chosen.add(object.row);
    totalBytes -= object.sizeBytes - object.liveBytes;
  }
  return chosen;
}
