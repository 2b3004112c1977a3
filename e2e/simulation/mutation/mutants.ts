/** Guards of the cluster, and how each is taken out of a copy of the sources (design sections 5 and 10, what is marked [!] there). */
import type { ProfileName } from '../profiles.ts';

export interface Patch {
  readonly file: string;
  /** Stands there exactly once. */
  readonly find: string;
  readonly replace: string;
}

/** A test that fails without the guard, for what the simulation is the wrong tool for. */
export interface FoundBy {
  /** What is run, from the root. */
  readonly file: string;
  /** Part of its name. */
  readonly test: string;
  /** Where that name is written, if not there. */
  readonly textIn?: string;
}

export interface Mutant {
  /** What is missing. */
  readonly name: string;
  readonly patches: readonly Patch[];
  readonly foundBy?: FoundBy;
  /** Tried in this order, each for its share of the seeds; default all that have faults. */
  readonly profiles?: readonly ProfileName[];
}

const PLACES = 'server/object-router/object-places.ts';
const DATA = 'server/object-router/data-calls.ts';
const GIVER = 'server/object-router/moves/move-giver.ts';
const RECEIVER = 'server/object-router/moves/move-receiver.ts';
const HOST = 'server/object-router/router-move-host.ts';
const JOURNAL = 'server/object-router/moves/ceded-journal.ts';
const DRIVER = 'server/volume-driver/volume-driver.ts';
const SOURCE = 'server/volume-driver/move-source.ts';
const REPLICA = 'server/volume-driver/object-replica.ts';
const KEEPER = 'server/volume-driver/object-keeper.ts';
const OWNERSHIP = 'registry/sqlite/ownership-verbs.ts';
const VERBS = 'registry/sqlite/execute-verb.ts';

const NO_REST: Patch = { file: KEEPER, find: 'nowMs - this.#restFromMs >= this.#settings.restMs', replace: 'true' };
const NO_TERM: Patch = {
  file: 'server/object-router/object-service.ts',
  find: 'target.inodeGeneration && sameTerm(served.driven.term, target.term) ? served : null',
  replace: 'target.inodeGeneration ? served : null',
};
const NO_WAIT_FOR_UNPROTECTED: Patch = {
  file: PLACES,
  find: "if (whose === 'dead' && owner !== null && owner.protection.kind !== 'clean') throw this.#wait(owner);",
  replace: '',
};
const NO_REFUSAL_OF_UNPROTECTED: Patch = {
  file: DRIVER,
  find: "else if (owner !== null && owner.protection.kind !== 'clean') {",
  replace: 'else if (owner === undefined) {',
};
const NO_CLAIM_ANEW: Patch = {
  file: GIVER,
  find: "if (transferred.kind === 'stays') return await this.#claimAnew(attempt);",
  replace: `if (transferred.kind === 'stays') {
      attempt.source.thaw();
      this.#release(attempt);
      attempt.phase = 'over';
      this.#forget(attempt, { kind: 'aborted', reason: 'mutant' }, 'mutant');
      return { kind: 'aborted', reason: 'mutant' };
    }`,
};
const NO_HOLD_AT_GIVER: Patch = {
  file: GIVER,
  find: 'const hold = host.hold(fileid);\n      attempt.hold = hold;',
  replace:
    'const held = host.hold(fileid);\n      held.release();\n      const hold = { ...held, release: () => undefined };\n      attempt.hold = hold;',
};
const NO_APPEND_HOLD: Patch = {
  file: SOURCE,
  find: 'log.hold(new ApplianceError(',
  replace: 'void (new ApplianceError(',
};
const OLD_VERBS: Patch = { file: VERBS, find: 'if (nowMs > mutation.notAfterMs) {', replace: 'if (nowMs === -1) {' };
const CLAIM_WITHOUT_TERM: Patch = {
  file: OWNERSHIP,
  find: '} else if (expected === null || !sameTerm(entry.owner.term, expected)) {',
  replace: '} else if (expected === null) {',
};
const CLAIM_OF_THE_LIVING: Patch = {
  file: OWNERSHIP,
  find: 'entry.owner.router !== router && step.records.routerOf(entry.owner.incarnation) !== null',
  replace: 'entry.owner.router === null',
};
const NO_RUNNING: Patch = {
  file: 'server/object-router/repetitions.ts',
  find: 'if (this.#running.size === 0) return null;',
  replace: 'if (this.#running.size >= 0) return null;',
};
const NO_DONE: Patch = { file: DATA, find: 'if (repetitions.isDone(fileid, words)) {', replace: 'if (repetitions.size < 0) {' };
const NO_CEDED_COUNTER: Patch = { file: JOURNAL, find: 'return this.#entries.get(fileid)?.to.counter ?? 0;', replace: 'return fileid < 0 ? 1 : 0;' };
const NO_FORGOTTEN: Patch = {
  file: JOURNAL,
  find: 'if (entry === undefined || !isForgotten(entry, expected)) return;',
  replace: 'if (entry === undefined || !isForgotten(entry, expected) || fileid > 0) return;',
};
const NO_RECOVERED: Patch = {
  file: 'e2e/simulation/simulated-router.ts',
  find: 'recovered: (fileid, calls) => repetitions.recovered(fileid, calls),',
  replace: 'recovered: () => undefined,',
};
const NO_END_AT_GIVER: Patch = { file: GIVER, find: 'if (attempt.frozen.lastSequence !== lastSequence) {', replace: 'if (lastSequence < 0) {' };
const NO_END_AT_RECEIVER: Patch = { file: RECEIVER, find: 'if (lastSequence !== frozen.lastSequence) {', replace: 'if (lastSequence < 0) {' };
const NO_TAIL: Patch = {
  file: RECEIVER,
  find: 'while (isBefore(replica.position, frozen.end)) {',
  replace: 'while (frozen.lastSequence < 0) {',
};
const NO_QUESTION: Patch = {
  file: HOST,
  find: 'if (inode === null) await this.#objects.unlink(fileid);',
  replace: 'if (fileid > 0) return;',
};
const NO_WAIT_FOR_ARRIVAL: Patch = {
  file: 'server/object-router/object-service.ts',
  find: 'for (let held = objects.held(fileid); held !== null; held = objects.held(fileid)) await held;',
  replace: '',
};
const NO_LEASE: Patch = { file: PLACES, find: 'this.lease = components.lease;', replace: 'this.lease = { valid: true, leftMs: 1e9 };' };

export const MUTANTS: readonly Mutant[] = [
  // ---- leases and members
  { name: 'lease looked at, when an operation starts and when it is answered', patches: [NO_LEASE] },
  {
    name: 'lease looked at when a read is answered',
    foundBy: { file: 'server/object-router/data-calls.test.ts', test: 'a READ that ends without a lease is not answered' },
    patches: [
      {
        file: DATA,
        find: 'this.#core.places.lease.valid ? readDone(served, offsetBytes, count)',
        replace: 'served !== null ? readDone(served, offsetBytes, count)',
      },
    ],
  },
  {
    name: 'lease looked at when a write is answered',
    foundBy: {
      file: 'server/object-router/data-calls.test.ts',
      test: 'a WRITE that was done is remembered also without a lease, and never answered then',
    },
    patches: [{ file: DATA, find: 'if (!this.#core.places.lease.valid) return this.#core.places.noAnswer();', replace: '' }],
  },
  {
    name: 'death is declared only when a lease is over',
    patches: [
      { file: 'server/object-router/member-watch.ts', find: 'nowMs - sinceMs <= this.#leaseMs + MARGIN_MS', replace: 'nowMs - sinceMs <= 3000' },
    ],
  },
  {
    name: 'who has no lease judges nobody',
    foundBy: { file: 'server/object-router/member-watch.test.ts', test: 'in which its own lease was short, is not held against anybody' },
    patches: [
      {
        file: 'server/object-router/member-watch.ts',
        find: 'if (!this.#lease.valid || this.#lease.leftMs < this.#leaseMs / 4) this.#restartClocks();',
        replace: '',
      },
    ],
  },
  {
    name: 'a dead incarnation executes no verb',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'an incarnation that never joined, was replaced, left or was marked dead is refused for every verb',
      textIn: 'registry/conformance/operations.ts',
    },
    patches: [
      { file: VERBS, find: 'if (records.routerOf(mutation.incarnation) === null) throw incarnationDead(mutation.incarnation);', replace: '' },
    ],
  },
  // ---- claims
  {
    name: 'a claim takes nothing of the living',
    patches: [CLAIM_OF_THE_LIVING, { file: PLACES, find: "? 'dead' : 'other'", replace: "? 'dead' : 'dead'" }],
  },
  {
    name: 'a claim compares the term',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'a claim that expected another term is a conflict and shows the record',
      textIn: 'registry/conformance/ownership.ts',
    },
    patches: [CLAIM_WITHOUT_TERM],
  },
  {
    name: 'a claim closes the term before it',
    patches: [
      {
        file: OWNERSHIP,
        find: 'closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },\n    protection: entry',
        replace: 'root,\n    protection: entry',
      },
    ],
  },
  {
    name: 'what is unprotected is not taken over (router)',
    foundBy: {
      file: 'server/object-router/object-places.test.ts',
      test: 'what only a dead router has is waited for, told as recovering, and opened by nobody else',
    },
    patches: [NO_WAIT_FOR_UNPROTECTED],
  },
  {
    name: 'what is unprotected is not taken over (driver)',
    foundBy: {
      file: 'server/volume-driver/move-deaths.test.ts',
      test: 'what a giver kept as cache is an owner’s log again when the receiver died with the only other copy',
    },
    patches: [NO_REFUSAL_OF_UNPROTECTED],
  },
  { name: 'what is unprotected is not taken over (both)', patches: [NO_WAIT_FOR_UNPROTECTED, NO_REFUSAL_OF_UNPROTECTED] },
  // ---- protection
  {
    name: 'unprotected is confirmed before the first answer',
    patches: [
      {
        file: KEEPER,
        find: "if (this.#protection === 'unprotected') return undefined;\n    const marked",
        replace: "if (this.#protection !== 'changing') return undefined;\n    const marked",
      },
    ],
  },
  {
    name: 'clean only when everything is on the backend',
    foundBy: {
      file: 'server/volume-driver/move-attempts.test.ts',
      test: 'an object that is being given away is not clean while only this router has what was written',
    },
    patches: [{ file: KEEPER, find: ' && this.#checkpointSequence === this.#object.appliedSequence;', replace: ';' }],
  },
  {
    name: 'clean only after a rest',
    foundBy: { file: 'server/volume-driver/object-move.test.ts', test: 'an object is not clean before it has rested' },
    patches: [NO_REST],
  },
  {
    name: 'clean only with attributes told',
    patches: [
      {
        file: KEEPER,
        find: "await this.#changeProtection('clean', { ...this.#object.attributes, usedBytes: this.#object.usedBytes });",
        replace: "await this.#changeProtection('clean');",
      },
    ],
  },
  // ---- late duplicates
  { name: 'completed calls are not done again', patches: [NO_DONE] },
  { name: 'a call joins the running one', patches: [NO_RUNNING] },
  { name: 'a call joins the running one; completed calls are not done again', patches: [NO_RUNNING, NO_DONE] },
  {
    name: 'the memory of calls moves with the object',
    patches: [
      {
        file: HOST,
        find: 'return this.#repetitions.after(fileid, from, bytesMax);',
        replace: 'return { bytes: Buffer.alloc(0), next: from + bytesMax * 0, behind: 0 };',
      },
    ],
  },
  {
    name: 'the memory of calls survives the process',
    patches: [
      {
        file: 'e2e/simulation/simulated-router.ts',
        find: "for (const record of this.#records) if ('call' in record)",
        replace: "for (const record of []) if ('call' in record)",
      },
    ],
  },
  {
    name: 'calls outlive a power cut before their records are behind a checkpoint',
    profiles: ['switch'],
    patches: [
      {
        file: 'e2e/simulation/simulated-router.ts',
        find: 'keepCalls: (fileid, durable) => repetitions.keep(fileid, durable),',
        replace: 'keepCalls: () => Promise.resolve(),',
      },
    ],
  },
  {
    name: 'calls are said to outlive a power cut when the log is durable',
    foundBy: {
      file: 'server/volume-driver/faults.test.ts',
      test: 'what was written before the calls of a checkpoint are kept is durable when they are said to be',
    },
    patches: [
      {
        file: 'server/volume-driver/object-keeper.ts',
        find: 'this.#keepCalls(() => this.#log.sync())',
        replace: 'this.#keepCalls(() => Promise.resolve())',
      },
    ],
  },
  {
    name: 'the calls of a move outlive a power cut before the owner changes',
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'an object moves while clients of both routers write to it' },
    patches: [{ file: RECEIVER, find: 'await kept;', replace: '' }],
  },
  {
    name: 'after a power cut only proven calls are believed',
    foundBy: {
      file: 'server/object-router/repetition-belief.test.ts',
      test: 'only calls of an object that lie before one of its marks are believed',
    },
    patches: [
      {
        file: 'server/object-router/repetition-belief.ts',
        find: 'return isWithin(number, ofAll) || isWithin(number, proven.get(fileid) ?? []);',
        replace: 'return ofAll.length >= 0 || isWithin(number, ofAll);',
      },
    ],
  },
  { name: 'a recovery learns of calls from the log', patches: [NO_RECOVERED] },
  {
    name: 'the memory of calls is exported when no change runs',
    foundBy: { file: 'server/object-router/router-move-host.test.ts', test: 'a hold waits for changes that end' },
    patches: [
      {
        file: HOST,
        find: '(this.#objects.get(fileid)?.changers ?? 0) > 0; looks',
        replace: '(this.#objects.get(fileid)?.changers ?? 0) < 0; looks',
      },
    ],
  },
  {
    name: 'a change that is old is not begun',
    foundBy: {
      file: 'server/object-router/object-places.test.ts',
      test: 'a change is not begun any more at an age at which a copy of it could meet its successor',
    },
    patches: [{ file: PLACES, find: 'const BEGIN_MS_MAX = 30_000;', replace: 'const BEGIN_MS_MAX = 1e9;' }],
  },
  {
    name: 'a verb that is old is not executed',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'a verb past its not-after time has no effect',
      textIn: 'registry/conformance/names.ts',
    },
    patches: [OLD_VERBS],
  },
  { name: 'a verb is executed once', patches: [{ file: VERBS, find: 'if (stored !== null) return stored;', replace: '' }] },
  {
    name: 'forwarded calls say the term',
    foundBy: { file: 'server/object-router/object-service.test.ts', test: 'is executed in the term that it was sent to' },
    patches: [NO_TERM],
  },
  // ---- moves
  {
    name: 'a change of owner compares the attempt',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'a transfer gives the record to the living incarnation of the router that it moves to',
      textIn: 'registry/conformance/ownership.ts',
    },
    patches: [
      {
        file: OWNERSHIP,
        find: "if (moving === null || !sameTerm(moving.attempt, attempt)) return { kind: 'conflict', owner };",
        replace: "if (moving === null) return { kind: 'conflict', owner };",
      },
    ],
  },
  {
    name: 'a change of owner compares the term',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'a transfer gives the record to the living incarnation of the router that it moves to',
      textIn: 'registry/conformance/ownership.ts',
    },
    patches: [
      {
        file: OWNERSHIP,
        find: "if (!sameTerm(owner.term, term) || owner.incarnation !== step.mutation.incarnation) return { kind: 'conflict', owner };\n  if (moving",
        replace: 'if (moving',
      },
    ],
  },
  {
    name: 'the receiver lives in the life that was asked',
    foundBy: {
      file: 'registry/sqlite/sqlite-registry.test.ts',
      test: 'a transfer gives the record to the living incarnation of the router that it moves to',
      textIn: 'registry/conformance/ownership.ts',
    },
    patches: [{ file: OWNERSHIP, find: 'receiver.dead || receiver.incarnation !== entry.receiver', replace: 'receiver.dead' }],
  },
  {
    name: 'a new term after a change of owner that came to nothing',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'at every step of a move: {"kind":"late","ms":5000}' },
    patches: [NO_CLAIM_ANEW],
  },
  {
    name: 'a new term after a change of owner that came to nothing; old verbs are not executed',
    profiles: ['switch'],
    patches: [NO_CLAIM_ANEW, OLD_VERBS],
  },
  { name: 'the giver holds calls in a switch', patches: [NO_HOLD_AT_GIVER] },
  {
    name: 'the giver holds appends in a freeze',
    foundBy: { file: 'server/volume-driver/move-attempts.test.ts', test: 'who waits for room to write hears of the hold at once' },
    patches: [NO_APPEND_HOLD],
  },
  { name: 'the giver holds calls and appends', patches: [NO_HOLD_AT_GIVER, NO_APPEND_HOLD] },
  {
    name: 'the receiver holds calls',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'at every step of a move: {"kind":"lost","when":"before","ms":0}' },
    patches: [{ file: RECEIVER, find: 'hold = host.hold(fileid);', replace: '' }],
  },
  { name: 'the giver lets go', patches: [{ file: GIVER, find: 'this.#around.host.moved(driven.fileid, owner);', replace: '' }] },
  {
    name: 'the giver compares where the copy ends; so does the receiver',
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'a copy that does not end where the owner says' },
    patches: [NO_END_AT_GIVER, NO_END_AT_RECEIVER, NO_TAIL],
  },
  {
    name: 'the giver compares where the copy ends',
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'a copy that does not end where the owner says' },
    patches: [NO_END_AT_GIVER],
  },
  {
    name: 'the receiver compares where the copy ends',
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'a copy that does not end where the owner says' },
    patches: [NO_END_AT_RECEIVER],
  },
  {
    name: 'the copy is synced before the owner changes',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: { file: 'server/volume-driver/object-move.test.ts', test: 'a copy is not said to be complete before all of it is durable' },
    patches: [{ file: REPLICA, find: 'await this.#log.sync();', replace: '' }],
  },
  {
    name: 'the copy is kept until it can never be the owner',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: { file: 'server/object-router/moves/moves.test.ts', test: 'a copy is kept while the owner may still let go' },
    patches: [
      {
        file: RECEIVER,
        find: 'if (definite || owner.moving === null || !sameTerm(owner.moving.attempt, attempt)) return reason;',
        replace: 'return reason;',
      },
    ],
  },
  {
    name: 'what arrived is entered by a recovery',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: {
      file: 'server/volume-driver/move-simulation.test.ts',
      test: 'wherever an object moves, and whatever goes wrong on the way, what was acknowledged is there, once',
    },
    patches: [{ file: DRIVER, find: 'if (sameTerm(replica.attempt, owner.term)) files.enter', replace: 'if (owner === undefined) files.enter' }],
  },
  {
    name: 'the keeper rests during a move',
    foundBy: {
      file: 'server/volume-driver/move-simulation.test.ts',
      test: 'wherever an object moves, and whatever goes wrong on the way, what was acknowledged is there, once',
    },
    patches: [{ file: KEEPER, find: 'this.#pinned = true;', replace: '' }],
  },
  {
    name: 'ceded: later terms are above it',
    foundBy: {
      file: 'server/object-router/moves/ceded-journal.test.ts',
      test: 'what was written is there after a power cut, the newest of each object',
    },
    patches: [NO_CEDED_COUNTER],
  },
  {
    name: 'ceded: a registry that forgot a move is not believed',
    foundBy: {
      file: 'server/object-router/moves/ceded-journal.test.ts',
      test: 'a claim over a record from before a move away is refused, whatever the registry says',
    },
    patches: [NO_FORGOTTEN],
  },
  { name: 'ceded: both', patches: [NO_CEDED_COUNTER, NO_FORGOTTEN] },
  {
    name: 'nothing comes back before it is known to have gone',
    profiles: ['switch', 'both-killed-then-move'],
    foundBy: {
      file: 'server/object-router/moves/moves.test.ts',
      test: 'an object does not come back to a router that does not know yet whether it gave it away',
    },
    patches: [
      { file: 'server/object-router/moves/moves.ts', find: 'if (this.giver.isGiving(order.fileid)) return', replace: 'if (order.fileid < 0) return' },
    ],
  },
  {
    name: 'a fault of the log ends the attempt',
    foundBy: { file: 'server/volume-driver/move-attempts.test.ts', test: 'a fault of the log ends the attempt, whenever it comes' },
    patches: [{ file: SOURCE, find: 'log.faults !== this.#faults || log.problem !== null', replace: 'log === null' }],
  },
  {
    name: 'nothing moves right after a failover',
    patches: [
      { file: 'e2e/simulation/registry/registry-server.ts', find: 'if (this.#nowMs() < this.#holdUntilMs) this.#refuseMoves(request);', replace: '' },
    ],
  },
  {
    name: 'no move after a failover, ceded, forgotten',
    patches: [
      { file: 'e2e/simulation/registry/registry-server.ts', find: 'if (this.#nowMs() < this.#holdUntilMs) this.#refuseMoves(request);', replace: '' },
      NO_CEDED_COUNTER,
      NO_FORGOTTEN,
    ],
  },
  // ---- removal
  {
    name: 'a removal waits for the owner',
    patches: [{ file: 'server/object-router/namespace-calls.ts', find: 'await this.#core.places.inodeChanged(inode);\n', replace: '' }],
  },
  {
    name: 'what changes while it arrives is waited for, and asked for',
    foundBy: { file: 'server/object-router/object-service.test.ts', test: 'of an object that is just arriving is answered when' },
    patches: [NO_QUESTION, NO_WAIT_FOR_ARRIVAL],
  },
  {
    name: 'what changes while it arrives is waited for',
    foundBy: { file: 'server/object-router/object-service.test.ts', test: 'of an object that is just arriving is answered when' },
    patches: [NO_WAIT_FOR_ARRIVAL],
  },
  {
    name: 'what changes while it arrives is asked for',
    foundBy: { file: 'server/object-router/object-service.test.ts', test: 'that only the router was told from which an object came is asked for' },
    patches: [NO_QUESTION],
  },
  // ---- the log
  {
    name: 'partly covered blocks are locked',
    patches: [
      {
        file: 'server/volume-driver/range-locks.ts',
        find: 'if (conflict === undefined) return this.lock(first, last);',
        replace: 'if (conflict !== null) return this.lock(first, last);',
      },
      {
        file: 'server/volume-driver/range-locks.ts',
        find: 'for (const lock of this.#locks) if (first <= lock.last && last >= lock.first) return true;\n',
        replace: '',
      },
    ],
  },
  {
    name: 'a recovery makes durable what it found',
    foundBy: { file: 'server/volume-driver/faults.test.ts', test: 'what only the page cache had is durable before a recovery tells of it' },
    patches: [
      {
        file: DRIVER,
        find: 'const durable = await this.#makeDurable(end, uploadedSegment);',
        replace: 'const durable = uploadedSegment < 0 ? await this.#makeDurable(end, uploadedSegment) : end;',
      },
    ],
  },
  {
    name: 'a recovery that may have lost data renews the verifier',
    foundBy: {
      file: 'server/volume-driver/object-move.test.ts',
      test: 'a window of UNSTABLE data that moved is still open when the receiver dies: the verifier changes',
    },
    patches: [
      {
        file: DRIVER,
        find: 'const verifier = end.unstableOpen ? random.bytes(8) : claimed.verifier;\n    if (end.unstableOpen)',
        replace: 'const verifier = claimed.verifier;\n    if (random === undefined)',
      },
    ],
  },
];
