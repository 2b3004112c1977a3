/**
 * What clients did to a few names of a directory and saw of them: is there an order of it all that explains every answer? A search over all orders that real
 * time allows; calls without a clear answer may have happened at any time after they were sent, or never.
 */

export type NameCall =
  | { readonly kind: 'create'; readonly name: string }
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'rename'; readonly name: string; readonly to: string }
  | { readonly kind: 'lookup'; readonly name: string };

/** `fileid` 0: there is none of that name. `unknown`: no answer says whether it happened. */
export type NameAnswer = { readonly kind: 'done'; readonly fileid: number } | { readonly kind: 'refused' } | { readonly kind: 'unknown' };

interface Entry {
  readonly call: NameCall;
  readonly beganMs: number;
  endedMs: number;
  answer: NameAnswer;
}

/** Steps of the search; a history that needs more is judged undecided, which is reported like a failure: tests are to be shorter. */
const STEPS_MAX = 400_000;

export class NameHistory {
  readonly #entries: Entry[] = [];

  get length(): number {
    return this.#entries.length;
  }

  begin(nowMs: number, call: NameCall): (nowMs: number, answer: NameAnswer) => void {
    const entry: Entry = { call, beganMs: nowMs, endedMs: Infinity, answer: { kind: 'unknown' } };
    this.#entries.push(entry);
    return (endedMs, answer) => {
      entry.answer = answer;
      if (answer.kind !== 'unknown') entry.endedMs = endedMs;
    };
  }

  /** Null when an order explains all answers, else a description. */
  check(): string | null {
    const entries = [...this.#entries].sort((a, b) => a.beganMs - b.beganMs);
    const dead = new Set<string>();
    let steps = 0;
    let furthest = 0;
    /** `first`: all before it are done. `done`: which of the later ones are. */
    const search = (first: number, done: ReadonlySet<number>, state: ReadonlyMap<string, string>): boolean => {
      let at = first;
      const left = new Set(done);
      while (left.delete(at)) at += 1;
      furthest = Math.max(furthest, at);
      if (at === entries.length) return true;
      const key = `${at}|${[...left].sort((a, b) => a - b).join(',')}|${[...state]
        .filter(([, value]) => value !== '0')
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .join(';')}`;
      if (dead.has(key)) return false;
      steps += 1;
      if (steps > STEPS_MAX) return false;
      // The next to happen began before every other that is left has ended.
      let horizonMs = Infinity;
      for (let index = at; index < entries.length; index += 1) {
        const entry = entries[index] as Entry;
        if (entry.beganMs > horizonMs) break;
        if (left.has(index)) continue;
        horizonMs = Math.min(horizonMs, entry.endedMs);
      }
      for (let index = at; index < entries.length; index += 1) {
        const entry = entries[index] as Entry;
        if (entry.beganMs > horizonMs) break;
        if (left.has(index)) continue;
        for (const next of outcomes(state, entry, index)) if (search(at, new Set([...left, index]), next)) return true;
      }
      dead.add(key);
      return false;
    };
    if (search(0, new Set(), new Map())) return null;
    if (steps > STEPS_MAX) return `undecided after ${STEPS_MAX} steps, ${entries.length} calls`;
    return `no order explains these answers (stuck behind call ${furthest}):\n${entries.map((entry, index) => `  ${index} ${describe(entry)}`).join('\n')}`;
  }
}

/** States after the call happened with its answer; none when it cannot have. */
function* outcomes(state: ReadonlyMap<string, string>, entry: Entry, index: number): Iterable<ReadonlyMap<string, string>> {
  const { call, answer } = entry;
  const held = state.get(call.name) ?? '0';
  const unknown = answer.kind === 'unknown';
  if (unknown) yield state;
  switch (call.kind) {
    case 'create':
      if (answer.kind === 'refused') {
        if (held !== '0') yield state;
      } else if (held === '0') yield new Map([...state, [call.name, answer.kind === 'done' ? String(answer.fileid) : `?${index}`]]);
      return;
    case 'remove':
      if (answer.kind === 'refused') {
        if (held === '0') yield state;
      } else if (held !== '0') yield new Map([...state, [call.name, '0']]);
      return;
    case 'rename':
      if (answer.kind === 'refused') {
        if (held === '0') yield state;
      } else if (held !== '0' && call.to === call.name) yield state;
      else if (held !== '0') yield new Map([...state, [call.name, '0'], [call.to, held]]);
      return;
    case 'lookup': {
      if (answer.kind !== 'done') return;
      const seen = String(answer.fileid);
      if (held === seen) yield state;
      // Made by a call that nobody heard the answer of: now its number is known.
      else if (held.startsWith('?') && seen !== '0') yield new Map([...state].map(([name, value]) => [name, value === held ? seen : value]));
      return;
    }
  }
}

function describe({ call, answer, beganMs, endedMs }: Entry): string {
  const what = call.kind === 'rename' ? `rename ${call.name} -> ${call.to}` : `${call.kind} ${call.name}`;
  const said = answer.kind === 'done' ? `#${answer.fileid}` : answer.kind;
  return `${beganMs.toFixed(1)}..${Number.isFinite(endedMs) ? endedMs.toFixed(1) : '?'} ${what}: ${said}`;
}
