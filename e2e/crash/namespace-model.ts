/**
 * What a tree of names may look like after a crash: operations that were answered have happened, one that was not has happened wholly or not at all.
 * No two operations under way touch the same path or object, so each stands alone.
 */

export interface ModelObject {
  readonly kind: 'file' | 'directory';
  /** Null until it is known: the answer to the CREATE never came. */
  fileid: number | null;
  mode: number;
}

/** Path (`directory/name`) -> what is there. */
type Names = Map<string, ModelObject>;

export interface NamespaceChange {
  readonly what: string;
  /** Paths it touches and what is there before and after; null: nothing. */
  readonly before: ReadonlyMap<string, ModelObject | null>;
  readonly after: ReadonlyMap<string, ModelObject | null>;
  /** SETATTR only. */
  readonly mode: { readonly object: ModelObject; readonly before: number; readonly after: number } | null;
}

export interface ObservedEntry {
  readonly fileid: number;
  readonly kind: 'file' | 'directory';
  readonly mode: number;
  readonly nlink: number;
}

export class NamespaceModel {
  readonly names: Names = new Map();
  readonly #underWay = new Set<NamespaceChange>();

  /** Whether an operation on these paths and the objects there may start. */
  isFree(paths: readonly string[]): boolean {
    const objects = paths.map((path) => this.names.get(path)).filter((object) => object !== undefined);
    for (const change of this.#underWay) {
      for (const [path, object] of [...change.before, ...change.after]) {
        if (paths.includes(path) || (object !== null && objects.includes(object))) return false;
      }
      if (change.mode !== null && objects.includes(change.mode.object)) return false;
    }
    return true;
  }

  /** Marks an operation as sent. */
  begin(
    what: string,
    after: ReadonlyMap<string, ModelObject | null>,
    mode: { readonly object: ModelObject; readonly after: number } | null = null,
  ): NamespaceChange {
    const before = new Map([...after.keys()].map((path) => [path, this.names.get(path) ?? null]));
    const change: NamespaceChange = { what, before, after, mode: mode === null ? null : { ...mode, before: mode.object.mode } };
    this.#underWay.add(change);
    return change;
  }

  /** It was answered with success. */
  done(change: NamespaceChange): void {
    this.#underWay.delete(change);
    this.#take(change);
  }

  /** It was answered with an error that says that nothing happened. */
  refused(change: NamespaceChange): void {
    this.#underWay.delete(change);
  }

  #take(change: NamespaceChange): void {
    for (const [path, object] of change.after) {
      if (object === null) this.names.delete(path);
      else this.names.set(path, object);
    }
    if (change.mode !== null) change.mode.object.mode = change.mode.after;
  }

  /** Judges the tree as listed after a crash and takes it as the state from here on. Returns what must not be, in words. */
  verifyAndAdopt(observed: ReadonlyMap<string, ObservedEntry>): string[] {
    const violations: string[] = [];
    for (const change of this.#underWay) {
      if (this.#matches(change, change.after, change.mode?.after, observed)) {
        this.#take(change);
      } else if (!this.#matches(change, change.before, change.mode?.before, observed)) {
        const found = [...change.before.keys()].map((path) => `${path}: ${JSON.stringify(observed.get(path) ?? null)}`).join(', ');
        violations.push(`${change.what} was not answered and is half done: ${found}`);
      }
    }
    this.#underWay.clear();
    for (const [path, object] of this.names) {
      const entry = observed.get(path);
      if (entry === undefined) violations.push(`${path} is gone (fileid ${object.fileid})`);
      else violations.push(...compare(path, object, entry));
    }
    const links = new Map<number, number>();
    for (const [path, entry] of observed) {
      if (!this.names.has(path)) violations.push(`${path} is there (fileid ${entry.fileid}) but was removed, renamed or never made`);
      links.set(entry.fileid, (links.get(entry.fileid) ?? 0) + 1);
    }
    for (const [path, entry] of observed) {
      if (entry.kind === 'file' && entry.nlink !== links.get(entry.fileid)) {
        violations.push(`${path}: nlink ${entry.nlink}, but fileid ${entry.fileid} has ${links.get(entry.fileid)} names`);
      }
    }
    return violations;
  }

  #matches(
    change: NamespaceChange,
    wanted: ReadonlyMap<string, ModelObject | null>,
    mode: number | undefined,
    observed: ReadonlyMap<string, ObservedEntry>,
  ): boolean {
    for (const [path, object] of wanted) {
      const entry = observed.get(path);
      if (object === null ? entry !== undefined : entry === undefined) return false;
      if (object === null || entry === undefined) continue;
      // A new object whose fileid was never told: it may have any that is not another's.
      if (object.fileid === null) {
        if (object.kind !== entry.kind || [...this.names.values()].some((other) => other.fileid === entry.fileid)) return false;
        object.fileid = entry.fileid;
      } else if (object.fileid !== entry.fileid) {
        return false;
      }
    }
    if (change.mode === null || mode === undefined) return true;
    const path = [...this.names].find(([, object]) => object === change.mode?.object)?.[0];
    return path !== undefined && observed.get(path)?.mode === mode;
  }
}

function compare(path: string, object: ModelObject, entry: ObservedEntry): string[] {
  const violations: string[] = [];
  if (entry.fileid !== object.fileid) violations.push(`${path}: fileid ${entry.fileid}, was ${object.fileid}`);
  if (entry.kind !== object.kind) violations.push(`${path}: is a ${entry.kind}, was a ${object.kind}`);
  if (entry.mode !== object.mode) violations.push(`${path}: mode ${entry.mode.toString(8)}, was ${object.mode.toString(8)}`);
  return violations;
}
