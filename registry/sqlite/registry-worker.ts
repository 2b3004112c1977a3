/**
 * The worker thread that owns the registry's writing connection. It takes everything that waits, runs it in one transaction (each verb in a
 * savepoint), commits once and answers all of it: one fsync for many verbs, and never one on the thread that serves NFS.
 */
import * as fs from 'node:fs';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';

import { assert, AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import { failPoint } from '../../server/core/fail-points.ts';
import { executeVerb, type VerbEnvironment } from './execute-verb.ts';
import { OperationMemory } from './operation-memory.ts';
import { Records } from './records.ts';
import { openWriter, readMeta } from './schema.ts';
import { isConstraint, isSqliteError, registryError } from './sqlite-errors.ts';
import type { Answer, Failure, Request, RequestBatch, VerbRequest, WorkerMessage, WorkerSettings } from './worker-protocol.ts';

/** Verbs of one transaction at most: bounds how long the first of them waits for the last. */
const TRANSACTION_VERBS_MAX = 1_024;
/** The fill of the WAL is looked at once in so many transactions. */
const CHECKPOINT_LOOK_EVERY = 16;

const settings = workerData as WorkerSettings;
assert(parentPort !== null, 'runs as a worker only');
const port = parentPort;

interface Connection extends VerbEnvironment {
  readonly db: DatabaseSync;
  readonly begin: StatementSync;
  readonly commit: StatementSync;
  readonly savepoint: StatementSync;
  readonly release: StatementSync;
  readonly probe: StatementSync;
  readonly walPages: StatementSync;
  readonly checkpoint: StatementSync;
}

let connection: Connection | null = null;
let transactions = 0;
let closing: number | null = null;
/** What a connection that is opened again must find: readers on the other thread still have that file open. */
let expectedInode: number | null = null;
let lastSequence = 0;
const waiting: { request: Request; wallOffsetMs: number }[] = [];

function connect(create: WorkerSettings['create']): Connection {
  const db = openWriter(settings.path, settings.vpoolName, create);
  try {
    const meta = readMeta(db);
    const { ino } = fs.statSync(settings.path);
    if (expectedInode !== null && ino !== expectedInode) {
      throw new ApplianceError(
        'registry-unavailable',
        `registry ${settings.path} was replaced by another file while in use: put the right one there and restart the router`,
        { retryable: true },
      );
    }
    expectedInode = ino;
    return {
      db,
      records: new Records(db),
      operations: new OperationMemory(db, settings.operations),
      generation: meta.generation,
      inlineBytesMax: settings.inlineBytesMax,
      begin: db.prepare('BEGIN IMMEDIATE'),
      commit: db.prepare('COMMIT'),
      savepoint: db.prepare('SAVEPOINT verb'),
      release: db.prepare('RELEASE verb'),
      probe: db.prepare('UPDATE meta SET probe = 1 - probe WHERE one = 1'),
      walPages: db.prepare('PRAGMA wal_checkpoint(NOOP)'),
      checkpoint: db.prepare('PRAGMA wal_checkpoint(PASSIVE)'),
    };
  } catch (error) {
    db.close();
    throw error;
  }
}

function post(message: WorkerMessage): void {
  port.postMessage(message);
}

function failureOf(error: unknown): Failure {
  const known = registryError(error, settings.path);
  if (known instanceof ApplianceError && known.code !== 'fail-point') return { code: known.code, message: known.message, retryable: known.retryable };
  const message = known instanceof Error ? known.message : String(known);
  return { code: 'registry-unavailable', message: `registry ${settings.path}: ${message}`, retryable: true };
}

/** Takes over everything that has been posted so far. */
function drain(first: RequestBatch): void {
  for (let batch: RequestBatch | undefined = first; batch !== undefined; batch = receiveMessageOnPort(port)?.message as RequestBatch | undefined) {
    for (const request of batch.requests) {
      if (request.kind === 'close') closing = request.id;
      else waiting.push({ request, wallOffsetMs: batch.wallOffsetMs });
    }
    if (waiting.length >= TRANSACTION_VERBS_MAX) break;
  }
}

/** Runs one transaction over what waits. */
function transact(): void {
  const taken = waiting.splice(0, TRANSACTION_VERBS_MAX);
  const answers: Answer[] = [];
  try {
    connection ??= connect(null);
    runTransaction(connection, taken, answers);
    post({ kind: 'answers', answers, trouble: null });
  } catch (error) {
    const trouble = failureOf(error);
    // What a failed disk left of the connection's state is not trusted: the next transaction opens a new one.
    disconnect();
    // A verb that had failed on its own keeps that answer; the others had no effect, or (a failed commit) an unknown one.
    const settled = new Map(answers.filter((answer) => !('outcome' in answer)).map((answer) => [answer.id, answer]));
    post({ kind: 'answers', answers: taken.map(({ request }) => settled.get(request.id) ?? { id: request.id, failure: trouble }), trouble });
  }
}

function runTransaction(open: Connection, taken: readonly { request: Request; wallOffsetMs: number }[], answers: Answer[]): void {
  open.begin.run();
  open.records.loadCounters();
  if (open.records.counters.sequence < lastSequence) {
    throw new ApplianceError(
      'registry-corrupt',
      `registry ${settings.path} went back from change ${lastSequence} to ${open.records.counters.sequence}: an older copy was put in its place`,
    );
  }
  for (const { request, wallOffsetMs } of taken) {
    if (request.kind === 'verb') answers.push(runVerb(open, request, Date.now() + wallOffsetMs));
    else {
      open.probe.run();
      answers.push({ id: request.id, outcome: 'null' });
    }
  }
  open.records.saveCounters();
  failPoint('registry.before-commit');
  open.commit.run();
  lastSequence = open.records.counters.sequence;
  failPoint('registry.after-commit');
  // On Linux a removed file can be written and synced for ever. What was acknowledged must be found at the next start.
  const present = fs.statSync(settings.path, { throwIfNoEntry: false });
  if (present?.ino !== expectedInode) {
    throw new ApplianceError('registry-unavailable', `registry ${settings.path} was removed or replaced while in use; restore the data directory`, {
      retryable: true,
    });
  }
}

function runVerb(open: Connection, request: VerbRequest, nowMs: number): Answer {
  const counters = { ...open.records.counters };
  open.savepoint.run();
  try {
    const outcome = executeVerb(open, request, nowMs);
    open.release.run();
    return { id: request.id, outcome };
  } catch (error) {
    // SQLite's own failures end the transaction; a refusal, a corrupt record or a bug concerns this verb alone.
    if (isSqliteError(error) && !isConstraint(error)) throw error;
    open.db.exec('ROLLBACK TO verb; RELEASE verb');
    open.records.counters = counters;
    if (error instanceof ApplianceError || isSqliteError(error) || (error instanceof Error && 'code' in error && error.code === 'ERR_OUT_OF_RANGE')) {
      return { id: request.id, failure: failureOf(error) };
    }
    return { id: request.id, bug: error instanceof AssertionError ? error.message : String(error instanceof Error ? error.stack : error) };
  }
}

function disconnect(): void {
  // Closing rolls back what is open.
  connection?.db.close();
  connection = null;
}

/** Writes the WAL back, between transactions, when nobody waits for an answer, or when it gets long. A failure is met again, and reported, at a commit. */
function checkpointIfDue(): void {
  if (connection === null) return;
  transactions += 1;
  if (transactions % CHECKPOINT_LOOK_EVERY !== 0) return;
  try {
    const pages = Number(connection.walPages.get()?.['log'] ?? 0);
    const idle = waiting.length === 0;
    if (pages < settings.checkpointPages || (!idle && pages < settings.checkpointPages * 8)) return;
    connection.checkpoint.get();
  } catch (error) {
    if (!isSqliteError(error)) throw error;
    disconnect();
  }
}

port.on('message', (batch: RequestBatch) => {
  drain(batch);
  while (waiting.length > 0) {
    transact();
    const next = receiveMessageOnPort(port)?.message as RequestBatch | undefined;
    if (next !== undefined) drain(next);
    checkpointIfDue();
  }
  if (closing !== null) {
    disconnect();
    post({ kind: 'answers', answers: [{ id: closing, outcome: 'null' }], trouble: null });
    port.close();
  }
});

try {
  connection = connect(settings.create);
  post({ kind: 'ready' });
} catch (error) {
  post({ kind: 'refused', failure: failureOf(error) });
  port.close();
}
