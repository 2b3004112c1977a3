/**
 * `npm run soak:cluster -- --minutes 60 --seed S [--only ping-pong,harm] [--exact] [--idle]`: a cluster through everything of e2e/cluster/, at random and for long. Prints the seed first
 * and a line for each event; ends at the first thing that is wrong, with the command that does it again, and keeps logs, history and disks (`--keep DIRECTORY`). `--exact`: the seed is that
 * of a round. `--idle`: the round of ten minutes without a call, too.
 * The round `harm` does every harm at every step of a move, on `--lanes N` clusters at once; what was done stands in `--record FILE`, and the next run goes on there. `--harms a,b`: only these. `--moves N`: of each ping-pong, 200 otherwise.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { keepEvidence } from '../cluster/evidence.ts';
import { HARMS } from '../cluster/move-harms.ts';
import { type Round, ROUNDS } from '../cluster/soak-rounds.ts';
import { SeededRandom } from '../random.ts';
import { scratchDirectory } from '../scratch.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string' },
    only: { type: 'string' },
    exact: { type: 'boolean', default: false },
    idle: { type: 'boolean', default: false },
    keep: { type: 'string', default: join(tmpdir(), 'vferry-violations') },
    record: { type: 'string', default: join(tmpdir(), 'vferry-harm-matrix.jsonl') },
    lanes: { type: 'string', default: '4' },
    harms: { type: 'string' },
    moves: { type: 'string', default: '200' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(`usage: npm run soak:cluster -- [options]
  --minutes N      how long rounds are begun (60)
  --only A,B       only these of ${Object.keys(ROUNDS).join(', ')}
  --seed N         of the whole run; with --exact, of the round itself
  --moves N        of each ping-pong (200)
  --idle           with the round of ten minutes without a call
  --harms A,B      of the round harm, only these of ${HARMS.join(', ')}
  --lanes N        of the round harm: clusters at once (4)
  --record FILE    of the round harm: what was done; the next run goes on there
  --keep DIR       where logs, history and disks of a violation are kept`);
  process.exit(0);
}
/** Of the round `harm` when others wait for their turn. */
const HARM_MS_MAX = 20 * 60_000;
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 0x1_0000_0000));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) throw new Error('--minutes is a number above 0, --seed a whole number');
const names = values.only?.split(',') ?? Object.keys(ROUNDS).filter((name) => name !== 'idle' || values.idle);
for (const name of names) if (ROUNDS[name] === undefined) throw new Error(`--only: there is no ${name}, but ${Object.keys(ROUNDS).join(', ')}`);

console.log(`seed ${seed}, ${minutes} minutes, rounds: ${names.join(', ')}`);
const random = new SeededRandom(seed);
const began = performance.now();
let rounds = 0;
let bag: string[] = [];
while (performance.now() - began < minutes * 60_000 && process.exitCode === undefined) {
  // Every round comes once before any comes again.
  if (bag.length === 0) bag = [...names];
  const [name = ''] = bag.splice(random.below(bag.length), 1);
  const roundSeed = values.exact ? seed : random.uint32();
  await round(name, roundSeed);
  rounds += 1;
}
if (process.exitCode === undefined) console.log(`${rounds} rounds, nothing wrong`);

async function round(name: string, roundSeed: number): Promise<void> {
  const started = performance.now();
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await scratchDirectory('soak')).path;
  const say = (line: string): void => console.log(`${new Date().toISOString()} ${name}: ${line}`);
  const clusters: Round['clusters'] = [];
  const matrix = {
    recordFile: values.record,
    lanes: Number(values.lanes),
    harms: values.harms?.split(',') ?? null,
    untilMs: Math.min(began + minutes * 60_000, names.length === 1 ? Infinity : started + HARM_MS_MAX),
  };
  try {
    // A seed of its own, so that a round can be done again without those before it.
    const what = await ROUNDS[name]?.({
      random: new SeededRandom(roundSeed),
      directory,
      stack,
      say,
      clusters,
      moves: Number(values.moves),
      keepDirectory: values.keep,
      matrix,
    });
    say(`${what} (${Math.round((performance.now() - started) / 1000)} s)`);
  } catch (error) {
    for (const cluster of clusters) {
      for (const { name: letter, process: router } of cluster.routers) console.error(`log of router ${letter}:\n${router.log.slice(-30_000)}`);
      const kept = join(values.keep, `${name}-${roundSeed}-${Date.now()}`);
      await keepEvidence(kept, cluster, error, [`round ${name}, seed ${roundSeed}`]);
      console.error(`kept in ${kept}`);
    }
    console.error(error);
    console.error(`VIOLATION in ${name}. Again: npm run soak:cluster -- --minutes 1 --seed ${roundSeed} --only ${name} --exact`);
    process.exitCode = 1;
  }
}
