/**
 * Who may use an export, and as whom. The port that MOUNT asks at MNT and NFS at every call (nfsd remembers the answer for an address,
 * so a decision must not change while the object lives; a change of rules is a new object).
 */

/** Which callers are turned into the anonymous user: none, uid 0 only, everybody. */
export type Squash = 'none' | 'root' | 'all';

export type ExportDecision =
  | 'denied'
  | {
      readonly readOnly: boolean;
      readonly squash: Squash;
      readonly anonymousUid: number;
      readonly anonymousGid: number;
    };

/** One line of the EXPORT list: a path with its leading slash, and networks as text (empty = everyone). */
export interface ExportEntry {
  readonly path: string;
  readonly groups: readonly string[];
}

export interface ExportAccess {
  /**
   * Decides for a client address (IPv4 or IPv6 text, also `::ffff:a.b.c.d`) and the first component of an export path (`vpool1`).
   * Unknown exports are allowed here: whether they exist is the FileSystem's to say.
   */
  decide(address: string, exportName: string): ExportDecision;
  /** For MOUNT's EXPORT and for people. */
  list(): readonly ExportEntry[];
}
