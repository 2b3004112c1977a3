/**
 * What a Redis has behind it: generations, each ended by a recovery round, and which of these rounds a router missed (docs/decisions/0021). The number of a generation is not
 * enough: after a restore another one may have got the same number, so each counts with the process that it lived on.
 */
import { corrupt, integerOf, textOf } from '../record-check.ts';

/** A generation and the process that it lived on (generation-record.ts); null: written by a version that did not keep it. */
export interface Settled {
  readonly generation: number;
  readonly identity: string | null;
}

/** The round that ended a generation. */
export interface EndedRound {
  readonly of: Settled;
  /** Last change that this Redis had when the round began. */
  readonly cut: number;
}

/** A round on the process `identity` in which this router brought back all that it had above `cut`, and said so. */
export interface TakenPart {
  readonly identity: string;
  readonly from: number;
  readonly cut: number;
}

const IDENTITY = 'identity ';
/** `<run_id>:<master_replid>` has 81. */
export const IDENTITY_CHARACTERS_MAX = 100;

/** Rounds in order, of the hash `rounds` (round-member-scripts.ts). @throws ApplianceError `registry-corrupt`. */
export function endedRounds(fields: ReadonlyMap<string, string>, key: string): EndedRound[] {
  const rounds: EndedRound[] = [];
  for (const [name, value] of fields) {
    if (name.startsWith(IDENTITY)) continue;
    if (!/^\d{1,16}$/.test(name) || !/^\d{1,16}$/.test(value)) return corrupt(key, `field ${name.slice(0, 40)}`);
    const identity = fields.get(`${IDENTITY}${name}`) ?? '';
    rounds.push({
      of: {
        generation: integerOf(Number(name), 0, Number.MAX_SAFE_INTEGER, key, 'generation'),
        identity: identity === '' ? null : textOf(identity, IDENTITY_CHARACTERS_MAX, key, 'identity'),
      },
      cut: integerOf(Number(value), 0, Number.MAX_SAFE_INTEGER, key, 'cut'),
    });
  }
  return rounds.sort((one, other) => one.of.generation - other.of.generation);
}

/** Whether both are the same generation, as far as is known. */
export function isSame(one: Settled, other: Settled): boolean {
  return one.generation === other.generation && (one.identity === null || other.identity === null || one.identity === other.identity);
}

/**
 * What a Redis in generation `present` with these rounds behind it may lack of the changes that a router acknowledged: those above this sequence; Infinity: none. `settled`: generations
 * that it worked in, the newest last; all that it had acknowledged was there when it began with one. `takenPart`: the last round in which it reported.
 */
export function missingAbove(rounds: readonly EndedRound[], present: Settled, settled: readonly Settled[], takenPart: TakenPart | null): number {
  if (settled.some((mine) => isSame(mine, present))) return Infinity;
  // The last generation in common: what was acknowledged before it is there. None is known: every round may have ended without this router.
  const common = rounds.findLastIndex(({ of }) => settled.some((mine) => isSame(mine, of)));
  const covered = takenPart === null ? -1 : rounds.findIndex(({ of }) => of.generation === takenPart.from);
  // One that ended on another process may have ended without what was brought to this one.
  const counts = covered !== -1 && (rounds[covered + 1]?.of ?? present).identity === takenPart?.identity;
  let above = Infinity;
  for (let index = Math.max(0, common); index < rounds.length; index += 1) {
    const { cut } = rounds[index] as EndedRound;
    // What was brought in a later round, from as far back as this one's cut, is there.
    if (counts && index <= covered && takenPart !== null && cut >= takenPart.cut) continue;
    above = Math.min(above, cut);
  }
  return above;
}
