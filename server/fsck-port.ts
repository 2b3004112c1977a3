/** Port between `vferry fsck` and the offline check of a data directory and its backend (`fsck.ts`). Nothing is changed by it. */
import type { Logger } from './core/logger.ts';
import type { Settings } from './settings/settings.ts';

export type FsckEvent =
  /** A new part of the check begins; `total` null: unknown. */
  | { readonly kind: 'phase'; readonly name: string; readonly total: number | null }
  /** Absolute count within the phase. May come as often as it likes; the command thins it out. */
  | { readonly kind: 'progress'; readonly done: number }
  /** `damage`: a reference or CRC is wrong. `warning`: odd but harmless (an object that nothing names). `where`: file, bucket/object, fileid. */
  | { readonly kind: 'finding'; readonly severity: 'damage' | 'warning'; readonly where: string; readonly message: string };

export interface FsckReport {
  readonly damages: number;
  readonly warnings: number;
  /** What was looked at, by noun: `{ inodes: 12, segments: 40, bytes: 1234 }`. */
  readonly checked: Readonly<Record<string, number>>;
}

/**
 * Verifies every reference and every CRC. Findings are told as they are found, so memory stays bounded.
 * Rejects with ApplianceError when it cannot run: no such data directory, a router runs on it, backend unreachable.
 */
export type FsckDataDirectory = (settings: Settings, logger: Logger, event: (event: FsckEvent) => void) => Promise<FsckReport>;
