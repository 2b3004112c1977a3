/**
 * Every kind of harm at every step of a move, each once, on several clusters side by side: most of a plan's time is waiting (for a lease, for a router that stands still).
 * What was done stands in a file, a line of JSON each, so that a run that was ended goes on where it was.
 */
import { appendFileSync, existsSync, readFileSync, renameSync } from 'node:fs';

import { MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { HostileStore } from '../hostile-store/hostile-store.ts';
import type { SeededRandom } from '../random.ts';
import type { Cluster } from './cluster.ts';
import { MoveCampaign, type MovePlan } from './move-campaign.ts';
import type { Harm } from './move-harms.ts';

type Outcome = 'hit' | 'not-reached' | 'violation';

interface Entry extends MovePlan {
  readonly outcome: Outcome;
}

/** A cluster of its own for some plans, not started; disposing of it ends it. */
export interface Lane extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly store: HostileStore;
}

export interface HarmMatrixOptions {
  /** Made by the first line. */
  readonly recordFile: string;
  readonly random: SeededRandom;
  readonly harms: readonly Harm[];
  readonly lanes: number;
  /** No plan is begun after this (milliseconds of `performance.now()`). */
  readonly untilMs: number;
  readonly say: (line: string) => void;
  readonly makeLane: (name: string) => Promise<Lane>;
  /** Keeps what can be known of a lane in which something was wrong; before it is disposed of. */
  readonly keep: (name: string, lane: Lane, error: unknown, plans: readonly MovePlan[]) => Promise<void>;
}

/** Plans for one cluster: then a new one, so that logs and histories stay small enough to be read. */
const PLANS_PER_CLUSTER = 24;
/** A step that was not reached may be so by chance. */
const TRIES = 3;

export class HarmMatrix {
  readonly #options: HarmMatrixOptions;
  readonly #harms: readonly Harm[];
  readonly #outcomes = new Map<string, Outcome[]>();
  readonly #todo: MovePlan[];
  readonly #operations = { count: 0, longestMs: 0 };

  constructor(options: HarmMatrixOptions) {
    this.#options = options;
    this.#harms = options.harms;
    this.#read();
    // Whole: it begins anew, and the old record stays beside the new one.
    if (this.#all().every((plan) => this.#isHit(plan))) {
      renameSync(options.recordFile, `${options.recordFile}.${Date.now()}`);
      this.#outcomes.clear();
    }
    const open = this.#all().filter((plan) => !this.#isHit(plan));
    // What stands still longest comes first: it fills the time of all others.
    const shuffled = shuffle(open, options.random);
    this.#todo = [...shuffled.filter(({ harm }) => harm === 'stop:60'), ...shuffled.filter(({ harm }) => harm !== 'stop:60')];
  }

  /** Resolves with a line and the table of what was hit. @throws Error when something was wrong, or a step was never reached. */
  async run(): Promise<string> {
    const { say, lanes } = this.#options;
    say(`${this.#todo.length} of ${this.#all().length} to do; record: ${this.#options.recordFile}`);
    const stopping = this.#todo.filter(({ harm }) => harm === 'stop:60');
    const others = this.#todo.filter(({ harm }) => harm !== 'stop:60');
    // A lane that stands still needs no processor: those with minutes of it run beside the others.
    const sleepers = Math.min(stopping.length, lanes + 1);
    const results = await Promise.allSettled([
      ...Array.from({ length: lanes }, (_, index) => this.#lane(`lane-${index}`, others)),
      ...Array.from({ length: sleepers }, (_, index) => this.#lane(`sleeper-${index}`, stopping)),
    ]);
    say(`\n${this.#table()}`);
    const broken = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as unknown);
    if (broken.length > 0) throw new AggregateError(broken, 'a lane could not go on');
    const wrong = this.#all().filter((plan) => this.#outcomesOf(plan).at(-1) === 'violation');
    const missed = this.#all().filter(
      (plan) => this.#outcomesOf(plan).filter((outcome) => outcome === 'not-reached').length >= TRIES && !this.#isHit(plan),
    );
    const left = others.length + stopping.length;
    if (wrong.length > 0) throw new Error(`something was wrong at: ${names(wrong)}`);
    if (missed.length > 0) throw new Error(`never reached: ${names(missed)}`);
    const hit = this.#all().filter((plan) => this.#isHit(plan)).length;
    return `${hit} of ${this.#all().length} steps x harms hit${left > 0 ? `, ${left} left for the next run` : ''}; ${this.#operations.count} operations, the longest ${Math.round(this.#operations.longestMs)} ms`;
  }

  #read(): void {
    if (!existsSync(this.#options.recordFile)) return;
    for (const line of readFileSync(this.#options.recordFile, 'utf8').split('\n')) if (line !== '') this.#note(JSON.parse(line) as Entry);
  }

  async #lane(name: string, queue: MovePlan[]): Promise<void> {
    for (let turn = 0; queue.length > 0 && !this.#isOver(); turn += 1) {
      const laneName = `${name}-${turn}`;
      await using lane = await this.#options.makeLane(laneName);
      const taken: MovePlan[] = [];
      let under: MovePlan | null = null;
      const plans = function* (this: HarmMatrix): Generator<MovePlan> {
        while (taken.length < PLANS_PER_CLUSTER && !this.#isOver()) {
          const plan = queue.shift();
          if (plan === undefined) return;
          under = plan;
          taken.push(plan);
          yield plan;
        }
      }.bind(this);
      const campaign = new MoveCampaign({
        cluster: lane.cluster,
        store: lane.store,
        seed: this.#options.random.uint32(),
        plans: { [Symbol.iterator]: plans },
        lanes: 6,
        pauseMs: 20,
        progress: (line) => this.#options.say(`${this.#progress()} ${laneName} ${line}`),
        done: (plan, reached) => {
          under = null;
          this.#record(plan, reached ? 'hit' : 'not-reached');
          if (!reached && this.#outcomesOf(plan).filter((outcome) => outcome === 'not-reached').length < TRIES) queue.push(plan);
        },
      });
      try {
        const { operations, longestMs } = await campaign.run();
        this.#operations.count += operations;
        this.#operations.longestMs = Math.max(this.#operations.longestMs, longestMs);
      } catch (error) {
        const plan: MovePlan | null = under ?? taken.at(-1) ?? null;
        this.#options.say(`${laneName}: WRONG at ${plan === null ? 'the start' : `${plan.point} ${plan.harm}`}: ${firstLines(error)}`);
        await this.#options.keep(laneName, lane, error, taken);
        if (plan === null) throw error;
        this.#record(plan, 'violation');
      }
    }
  }

  #isOver(): boolean {
    return performance.now() > this.#options.untilMs;
  }

  #all(): MovePlan[] {
    return this.#harms.flatMap((harm) => MOVE_FAIL_POINTS.map((point) => ({ point, harm })));
  }

  #outcomesOf({ point, harm }: MovePlan): readonly Outcome[] {
    return this.#outcomes.get(`${point} ${harm}`) ?? [];
  }

  #isHit(plan: MovePlan): boolean {
    return this.#outcomesOf(plan).includes('hit');
  }

  #note({ point, harm, outcome }: Entry): void {
    const name = `${point} ${harm}`;
    this.#outcomes.set(name, [...(this.#outcomes.get(name) ?? []), outcome]);
  }

  #record(plan: MovePlan, outcome: Outcome): void {
    const entry: Entry = { ...plan, outcome };
    this.#note(entry);
    appendFileSync(this.#options.recordFile, `${JSON.stringify({ ...entry, at: new Date().toISOString() })}\n`);
  }

  #progress(): string {
    const all = this.#all();
    return `${all.filter((plan) => this.#isHit(plan)).length} of ${all.length}`;
  }

  /** `x` hit, `V` something was wrong the last time, `-` tried and not reached, `.` not tried. */
  #table(): string {
    const mark = (plan: MovePlan): string => {
      const outcomes = this.#outcomesOf(plan);
      if (outcomes.at(-1) === 'violation') return 'V';
      if (outcomes.includes('hit')) return 'x';
      return outcomes.length > 0 ? '-' : '.';
    };
    const width = Math.max(...MOVE_FAIL_POINTS.map((point) => point.length));
    const head = `${''.padEnd(width)} ${this.#harms.join(' ')}`;
    const rows = MOVE_FAIL_POINTS.map((point) => {
      const cells = this.#harms.map((harm) => mark({ point, harm }).padEnd(harm.length));
      return `${point.padEnd(width)} ${cells.join(' ')}`;
    });
    return [head, ...rows].join('\n');
  }
}

function names(plans: readonly MovePlan[]): string {
  return plans.map(({ point, harm }) => `${point} ${harm}`).join(', ');
}

function firstLines(error: unknown): string {
  return String(error).split('\n').slice(0, 4).join(' | ');
}

function shuffle<T>(all: readonly T[], random: SeededRandom): T[] {
  const shuffled = [...all];
  for (let index = shuffled.length - 1; index > 0; index -= 1) {
    const other = random.below(index + 1);
    const [one, two] = [shuffled[index] as T, shuffled[other] as T];
    shuffled[index] = two;
    shuffled[other] = one;
  }
  return shuffled;
}
