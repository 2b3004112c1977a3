/** Takes guards out of a copy of the sources, one mutant at a time, and lets the simulation look for it: which guards would it notice if they were missing? */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import type { ProfileName } from '../profiles.ts';
import { type FoundBy, type Mutant, MUTANTS, type Patch } from './mutants.ts';

const ROOT = join(import.meta.dirname, '../../..');
const FOLDERS = ['server', 'registry', 'backends', 'cache', 'e2e'];
/** What each of the profiles gets of the seeds. */
const SHARES: readonly (readonly [ProfileName, number])[] = [
  ['steps', 0.15],
  ['faults', 0.85],
];

/** Most are done in a second. One that takes longer with nothing taken out, too, has found nothing (see `runMutants`). */
const TEST_MS_MAX = 60_000;

interface MutationSettings {
  readonly seeds: number;
  readonly from: number;
  /** Of processor time, for one mutant. */
  readonly seconds: number;
  /** Only mutants whose name has this in it. */
  readonly only: string;
  /** Unit tests only, no seeds. */
  readonly testsOnly: boolean;
  readonly print: (line: string) => void;
}

/** Runs the mutants and prints a line of each, ready for a table. Returns the names of those that were not found. */
export async function runMutants(settings: MutationSettings): Promise<string[]> {
  const missed: string[] = [];
  const directory = await mkdtemp(join(tmpdir(), 'vferry-mutants-'));
  try {
    for (const folder of [...FOLDERS, 'package.json']) {
      await cp(join(ROOT, folder), join(directory, folder), { recursive: true, filter: (path) => !path.includes('node_modules') });
    }
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    // What is not right already would be taken for the mutant's.
    if (!settings.testsOnly) {
      const nothing = await search(directory, { name: 'nothing', patches: [] }, { ...settings, seeds: Math.min(settings.seeds, 20) });
      if (!nothing.startsWith('not found')) throw new Error(`with nothing taken out: ${nothing}`);
    }
    for (const mutant of MUTANTS) {
      if (!mutant.name.includes(settings.only) || (settings.testsOnly && mutant.foundBy === undefined)) continue;
      let found = await hunted(directory, mutant, settings);
      if (found.startsWith('test:') && mutant.foundBy !== undefined && (await fails(directory, mutant.foundBy)))
        found = 'not found: its test fails with nothing taken out, too |';
      if (found.startsWith('not found')) missed.push(mutant.name);
      settings.print(`| ${mutant.name} | ${found} |`);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
  return missed;
}

async function hunted(directory: string, mutant: Mutant, settings: MutationSettings): Promise<string> {
  const originals = new Map<string, string>();
  for (const { file } of mutant.patches) if (!originals.has(file)) originals.set(file, await readFile(join(directory, file), 'utf8'));
  try {
    const patched = new Map(originals);
    for (const patch of mutant.patches) {
      const source = applied(patch, patched.get(patch.file) ?? '');
      if (source === null) return `not found: its patch of ${patch.file} does not fit any more |`;
      patched.set(patch.file, source);
    }
    for (const [file, source] of patched) await writeFile(join(directory, file), source);
    const byTest = mutant.foundBy !== undefined && (await fails(directory, mutant.foundBy)) ? `test: ${mutant.foundBy.test} | ` : null;
    if (settings.testsOnly) return byTest ?? `not found by its test "${mutant.foundBy?.test ?? ''}" | `;
    const bySeed = await search(directory, mutant, settings);
    return byTest !== null && bySeed.startsWith('not found') ? byTest + bySeed : bySeed;
  } finally {
    for (const [file, source] of originals) await writeFile(join(directory, file), source);
  }
}

/** Null: the guard is written in another way now, and its mutant has to follow. */
function applied({ find, replace }: Patch, source: string): string | null {
  const parts = source.split(find);
  return parts.length === 2 ? parts.join(replace) : null;
}

async function search(directory: string, mutant: Mutant, settings: MutationSettings): Promise<string> {
  const began = performance.now();
  const played: string[] = [];
  const profiles = mutant.profiles === undefined ? SHARES : mutant.profiles.map((name) => [name, 1 / (mutant.profiles?.length ?? 1)] as const);
  for (const [profile, share] of profiles) {
    const seeds = Math.ceil(settings.seeds * share);
    const cpuSeconds = settings.seconds * share;
    const result = await play(directory, profile, settings.from, seeds, cpuSeconds);
    if (result.problem !== null) {
      const seconds = Math.round((performance.now() - began) / 1000);
      return `${profile} ${result.seed} (${seconds} s) | ${result.problem.slice(0, 160).replaceAll('|', '/')}`;
    }
    played.push(`${profile} ${settings.from}-${result.seed}`);
  }
  return `not found in ${played.join(', ')} | `;
}

/** Whether the test fails; one that hangs does. */
async function fails(directory: string, { file, test }: FoundBy): Promise<boolean> {
  const pattern = test.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  // In one process: one that loops for ever in a turn is killed with it.
  const args = ['--test', '--test-isolation=none', `--test-name-pattern=${pattern}`, file];
  const environment = { ...process.env };
  // Inside of a test runner it would report to that one.
  delete environment['NODE_TEST_CONTEXT'];
  const child = spawn(process.execPath, args, { cwd: directory, stdio: 'ignore', env: environment });
  const killer = setTimeout(() => child.kill('SIGKILL'), TEST_MS_MAX);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearTimeout(killer);
  return code !== 0;
}

interface Played {
  /** The last one, or the one that failed. */
  readonly seed: number;
  readonly problem: string | null;
}

/** Plays seeds in a process of its own until one fails or the time is over. */
async function play(directory: string, profile: ProfileName, from: number, seeds: number, cpuSeconds: number): Promise<Played> {
  const args = ['e2e/simulation/main.ts', '--seeds', String(seeds), '--from', String(from), '--profile', profile, '--seconds', String(cpuSeconds)];
  const child = spawn(process.execPath, args, { cwd: directory, stdio: ['ignore', 'pipe', 'inherit'] });
  // One that hangs in a turn was found, too.
  const killer = setTimeout(() => child.kill('SIGKILL'), cpuSeconds * 10_000 + 120_000);
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit') as Promise<[number | null]>]);
  clearTimeout(killer);
  const failed = /^seed (\d+): (.*)$/m.exec(output);
  if (failed !== null) return { seed: Number(failed[1]), problem: failed[2]?.replace(/^at [\d.]+ ms: /, '') ?? '' };
  if (code !== 0) return { seed: 0, problem: `the simulation ended with ${String(code)}` };
  const summary = JSON.parse(output.slice(output.lastIndexOf('{'))) as { lastSeed: number };
  return { seed: summary.lastSeed, problem: null };
}
