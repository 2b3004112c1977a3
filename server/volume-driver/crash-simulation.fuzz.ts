import { simulate } from './testing/crash-simulation.ts';

/** Histories of crashes and faults (testing/crash-simulation.ts), one for every 20 iterations. Throws with the seed that repeats what is wrong. */
export async function fuzzCrashes(seed: number, iterations: number): Promise<void> {
  for (let index = 0; index * 20 < iterations; index += 1) {
    const history = (seed + index * 7919) >>> 0;
    try {
      await simulate(history);
    } catch (error) {
      throw new Error(`SEEDS=${history}: ${String(error)}`, { cause: error });
    }
  }
}
