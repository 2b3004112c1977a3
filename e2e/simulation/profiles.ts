/** What kind of life a simulated cluster leads. */

export const PROFILES = ['faults', 'calm', 'steps', 'both-killed-then-move', 'switch'] as const;
/**
 * `faults`: everything goes wrong, in any order. `calm`: nothing does, so nothing may be answered with JUKEBOX. `steps`: one volume goes from router to router
 * while two hosts write to it without pause, and at named steps of its moves something bad happens. `both-killed-then-move`: the same, and mostly a giver that loses
 * its receiver, then both killed before a switch, recoveries, moves at once after them, moves that end and thaw. `switch`: the same, and mostly what goes wrong between the question to the registry and
 * the first answer of the new owner: it is late, unanswered or forgotten, one of them dies or stands still, the power of the new owner is cut.
 */
export type ProfileName = (typeof PROFILES)[number];

export interface Profile {
  /** Calls that each host has under way. */
  readonly lanesMax: number;
  /** A host waits so long between two calls. */
  readonly thinkMs: number;
  /** All of the work is reading and writing of one volume, stable. */
  readonly oneVolume: boolean;
  readonly routers: 2 | null;
}

export function profileOf(name: ProfileName): Profile {
  return name === 'faults' || name === 'calm'
    ? { lanesMax: 4, thinkMs: 40, oneVolume: false, routers: null }
    : { lanesMax: 8, thinkMs: 30, oneVolume: true, routers: 2 };
}
