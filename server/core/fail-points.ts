/**
 * Named places where a test kills, delays or fails the process: `VFERRY_FAIL_POINTS="log.before-sync=kill@3,upload.after-put=error"`.
 * An action is `kill` (SIGKILL to self), `stop` (SIGSTOP to self, until somebody sends SIGCONT), `error` (throws an ApplianceError `fail-point`), or `delay:MS`; `@N` means at the N-th hit (default 1st);
 * `delay` and `error` apply from the N-th hit on when written `@N+`. `VFERRY_FAIL_POINTS=file:PATH`: the same text stands in a file, which is read at every hit, so that a test can change
 * it while the process runs (by rename; hits are counted anew then). What is done is told on standard error, `fail point NAME: ACTION`, before it is done. Without the variable a hit
 * costs one truthiness test.
 *
 * Every name is listed in FAIL_POINTS or MOVE_FAIL_POINTS; the crash tests enumerate the lists and fail when one was never hit.
 */
import { readFileSync, writeSync } from 'node:fs';

import { ApplianceError, errorCode } from './errors.ts';

export const FAIL_POINTS = [
  'log.before-write',
  'log.after-write',
  'log.after-sync',
  'log.segment-created',
  'log.before-seal',
  'log.after-seal',
  'upload.before-put',
  'upload.after-put',
  'root.before-update',
  'root.after-update',
  'checkpoint.before-put',
  'checkpoint.after-put',
  'release.before-rename',
  'release.after-rename',
  'recovery.before-scan',
  'recovery.after-close',
  'recovery.before-open',
  'registry.before-commit',
  'registry.after-commit',
  'object.before-claim',
  'object.after-claim',
  'flip.after-registry',
  'remove.after-registry',
  'reclaim.before-delete',
  'reclaim.after-delete',
] as const;

/** Control steps of a move (docs/ARCHITECTURE.md, Moves), at the giver and the receiver: hit only in a cluster, so the tests of one router leave them out. */
export const MOVE_FAIL_POINTS = [
  'move.give-asked',
  'move.give-reserved',
  'move.give-before-freeze',
  'move.give-frozen',
  'move.give-before-ceded',
  'move.give-after-ceded',
  'move.give-after-transfer',
  'move.give-after-cede',
  'move.take-before-ask',
  'move.take-offered',
  'move.take-attached',
  'move.take-caught-up',
  'move.take-frozen',
  'move.take-before-confirm',
  'move.take-confirmed',
  'move.take-activated',
  // Of the engine below them.
  'move.source-offered',
  'move.source-fetched',
  'move.source-before-seal',
  'move.source-sealed',
  'move.source-ceded',
  'move.replica-before-claim',
  'move.replica-after-claim',
  'move.replica-loaded',
  'move.replica-appended',
  'move.replica-before-sync',
  'move.replica-synced',
  'move.replica-before-activate',
  'move.replica-activated',
  'move.replica-before-rename',
  'move.replica-renamed',
] as const;
export type FailPoint = (typeof FAIL_POINTS)[number] | (typeof MOVE_FAIL_POINTS)[number];

interface Action {
  readonly kind: 'kill' | 'stop' | 'error' | 'delay';
  readonly delayMs: number;
  readonly hit: number;
  readonly onwards: boolean;
  hits: number;
}

const ALL: ReadonlySet<string> = new Set([...FAIL_POINTS, ...MOVE_FAIL_POINTS]);

function parse(text: string): Map<string, Action> {
  const actions = new Map<string, Action>();
  for (const part of text.split(',').filter((entry) => entry !== '')) {
    const match = /^([a-z.-]+)=(kill|stop|error|delay:(\d+))(?:@(\d+)(\+)?)?$/.exec(part);
    if (match === null || !ALL.has(match[1] ?? '')) {
      throw new ApplianceError('fail-point-syntax', `VFERRY_FAIL_POINTS: "${part}" is not NAME=kill|stop|error|delay:MS[@N[+]] with a known NAME`);
    }
    const kind = match[2]?.startsWith('delay') === true ? 'delay' : (match[2] as 'kill' | 'stop' | 'error');
    actions.set(match[1] ?? '', { kind, delayMs: Number(match[3] ?? 0), hit: Number(match[4] ?? 1), onwards: match[5] === '+', hits: 0 });
  }
  return actions;
}

const environment = process.env['VFERRY_FAIL_POINTS'] ?? '';
const file = environment.startsWith('file:') ? environment.slice('file:'.length) : null;
let text = environment;
let actions: Map<string, Action> | null = environment === '' ? null : parse(file === null ? environment : '');

let watcher: ((name: FailPoint) => void) | null = null;

/** Marks a fail point. Free when no fail point is set. @throws ApplianceError `fail-point` when told to. */
export function failPoint(name: FailPoint): void {
  if (actions !== null) hit(name, file === null ? actions : current(file));
  if (watcher !== null) watcher(name);
}

/** A fail point where an error can be handled no more than ignored, since nothing that is not a fail point can fail there. */
export function reached(name: FailPoint): void {
  try {
    failPoint(name);
  } catch (error) {
    if (errorCode(error) !== 'fail-point') throw error;
  }
}

/** For tests with many routers in one process (e2e/simulation): told of every fail point that is reached; what it throws is thrown there. Null: nobody. */
export function watchFailPoints(told: ((name: FailPoint) => void) | null): void {
  watcher = told;
}

/** What a fail point throws that is told to fail: an error of the environment. */
export function failPointError(name: FailPoint): ApplianceError {
  return new ApplianceError('fail-point', `fail point ${name} was told to fail`);
}

/** A fail point where being told to fail is a fault of the disk: the error, or null. */
export function toldToFail(name: FailPoint): Error | null {
  try {
    failPoint(name);
    return null;
  } catch (error) {
    return error as Error;
  }
}

function current(path: string): Map<string, Action> {
  const now = readFileSync(path, 'utf8').trim();
  if (now !== text || actions === null) {
    actions = parse(now);
    text = now;
  }
  return actions;
}

function hit(name: FailPoint, table: Map<string, Action>): void {
  const action = table.get(name);
  if (action === undefined) return;
  action.hits += 1;
  if (action.hits !== action.hit && !(action.onwards && action.hits > action.hit)) return;
  writeSync(2, `fail point ${name}: ${action.kind}\n`);
  switch (action.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
      // SIGKILL is delivered before the system call returns to user code of this thread, but be sure.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
      return;
    case 'stop':
      process.kill(process.pid, 'SIGSTOP');
      return;
    case 'delay':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, action.delayMs);
      return;
    case 'error':
      throw failPointError(name);
  }
}
