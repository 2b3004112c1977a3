/**
 * `npm run fuzz [-- --minutes 10 --seed S --only rpc]`: every `*.fuzz.ts` beside the code, round after round with fresh seeds, each in a process of
 * its own with little memory and a deadline, so that a crash, a hang and a leak are all findings. A module exports
 *
 *   export async function fuzzSomething(seed: number, iterations: number): Promise<unknown>   // throws when something is wrong
 *
 * First comes a canary that must be found; if it is not, the fuzzing itself is broken. Prints how to repeat what it finds and exits 1.
 */
import { globSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { run } from './command.ts';
import { SeededRandom } from './random.ts';

const ROOT = join(import.meta.dirname, '..');
const RUNNER = join(import.meta.dirname, 'fuzzing', 'run-module.ts');
const CANARY = join(import.meta.dirname, 'fuzzing', 'canary.fuzz.ts');
const ITERATIONS = 1000;
/** A round takes seconds; one of this length hangs. */
const ROUND_TIMEOUT_MS = 120_000;
/** V8's heap limit: bounded memory is part of what is tested. */
const HEAP_MIB = 256;

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, seed: { type: 'string' }, only: { type: 'string' } } });
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 0x1_0000_0000));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) throw new Error('--minutes is a number above 0, --seed a whole number');

const modules = globSync('{server,registry,cache,backends}/**/*.fuzz.ts', { cwd: ROOT })
  .toSorted()
  .filter((path) => basename(path).includes(values.only ?? ''));
if (modules.length === 0) throw new Error(`no fuzz module matches ${values.only ?? '*.fuzz.ts'}`);

const canary = await round(CANARY, seed);
if (canary === null) throw new Error('the canary was not found: fuzzing is broken');
console.log(`seed ${seed}; the canary was found; ${minutes} minutes of ${modules.join(', ')}`);

const random = new SeededRandom(seed);
const started = performance.now();
const rounds = new Map<string, number>();
let failures = 0;
while (performance.now() - started < minutes * 60_000 && failures < 10) {
  for (const module of modules) {
    const roundSeed = random.uint32();
    const failure = await round(join(ROOT, module), roundSeed);
    rounds.set(module, (rounds.get(module) ?? 0) + 1);
    if (failure === null) continue;
    failures += 1;
    console.error(`${module} fails with seed ${roundSeed}:\n${failure}\nagain: node e2e/fuzzing/run-module.ts ${module} ${roundSeed} ${ITERATIONS}`);
  }
}
for (const [module, count] of rounds) console.log(`${module}: ${count} rounds of ${ITERATIONS}`);
console.log(failures === 0 ? 'nothing found' : `${failures} findings`);
if (failures > 0) process.exitCode = 1;

/** One module with one seed in a process of its own. Null, or what went wrong. */
async function round(module: string, roundSeed: number): Promise<string | null> {
  const command = [process.execPath, `--max-old-space-size=${HEAP_MIB}`, RUNNER, module, String(roundSeed), String(ITERATIONS)];
  try {
    await run(command, { timeoutMs: ROUND_TIMEOUT_MS, cwd: ROOT });
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
