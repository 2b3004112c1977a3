/** One verb in its transaction: incarnation, remembered operation, deadline, effect, outbox, memory. */
import { assert } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import { encodeOutcome, type Outcomes, type Verb } from '../outcome-codec.ts';
import { dropInlineBase, dropTombstone, flipToFile, putOwnedAttributes, setAttributes, writeInline } from './attribute-verbs.ts';
import { incarnationDead, join, leave, markDead, renew } from './membership-verbs.ts';
import { createDirectory, createFile, createSymlink, link, remove, removeDirectory } from './name-verbs.ts';
import type { OperationMemory } from './operation-memory.ts';
import { beginMove, claim, transfer, update } from './ownership-verbs.ts';
import type { Records } from './records.ts';
import { rename } from './rename-verb.ts';
import type { Step } from './verb-step.ts';
import type { VerbRequest } from './worker-protocol.ts';

export interface VerbEnvironment {
  readonly records: Records;
  readonly operations: OperationMemory;
  readonly generation: number;
  readonly inlineBytesMax: number;
}

/** Executes a request and answers its outcome as JSON. Throws to have it rolled back. `nowMs`: the caller's wall clock. */
export function executeVerb(environment: VerbEnvironment, request: VerbRequest, nowMs: number): string {
  const { records, operations, generation } = environment;
  const { verb, mutation } = request;
  records.clearImage();
  if (mutation === null) return encodeOutcome(verb, memberVerb(records, request));

  if (records.routerOf(mutation.incarnation) === null) throw incarnationDead(mutation.incarnation);
  const wholeMs = Math.floor(nowMs);
  if (mutation.operationId !== null) {
    const stored = operations.recall(mutation.operationId, verb, wholeMs);
    if (stored !== null) return stored;
  }
  if (nowMs > mutation.notAfterMs) {
    throw new ApplianceError(
      'registry-unavailable',
      `${verb} came ${Math.ceil(nowMs - mutation.notAfterMs)} ms after its deadline and was not executed`,
      {
        retryable: true,
      },
    );
  }
  const step: Step = { records, mutation, generation, inlineBytesMax: environment.inlineBytesMax };
  const outcome = encodeOutcome(verb, mutatingVerb(step, request));
  records.writeOutbox(generation, mutation.operationId, verb);
  if (mutation.operationId !== null) operations.remember(mutation.operationId, verb, wholeMs, outcome, records.counters);
  return outcome;
}

function is<V extends Verb>(request: VerbRequest, verb: V): request is VerbRequest<V> {
  return request.verb === verb;
}

function mutatingVerb(step: Step, request: VerbRequest): Outcomes[Verb] {
  if (is(request, 'createFile')) return createFile(step, ...request.arguments);
  if (is(request, 'createDirectory')) return createDirectory(step, ...request.arguments);
  if (is(request, 'createSymlink')) return createSymlink(step, ...request.arguments);
  if (is(request, 'remove')) return remove(step, ...request.arguments);
  if (is(request, 'removeDirectory')) return removeDirectory(step, ...request.arguments);
  if (is(request, 'rename')) return rename(step, ...request.arguments);
  if (is(request, 'link')) return link(step, ...request.arguments);
  if (is(request, 'setAttributes')) return setAttributes(step, ...request.arguments);
  if (is(request, 'writeInline')) return writeInline(step, ...request.arguments);
  if (is(request, 'flipToFile')) return flipToFile(step, ...request.arguments);
  if (is(request, 'dropInlineBase')) return dropInlineBase(step, ...request.arguments);
  if (is(request, 'putOwnedAttributes')) return putOwnedAttributes(step, ...request.arguments);
  if (is(request, 'dropTombstone')) return dropTombstone(step, ...request.arguments);
  if (is(request, 'claim')) return claim(step, ...request.arguments);
  if (is(request, 'beginMove')) return beginMove(step, ...request.arguments);
  if (is(request, 'transfer')) return transfer(step, ...request.arguments);
  if (is(request, 'update')) return update(step, ...request.arguments);
  assert(false, `${request.verb} takes no mutation`);
}

function memberVerb(records: Records, request: VerbRequest): Outcomes[Verb] {
  if (is(request, 'join')) return join(records, ...request.arguments);
  if (is(request, 'renew')) return renew(records, ...request.arguments);
  if (is(request, 'markDead')) return markDead(records, ...request.arguments);
  if (is(request, 'leave')) return leave(records, ...request.arguments);
  if (is(request, 'release')) {
    records.releaseOutbox(...request.arguments);
    return null;
  }
  assert(false, `${request.verb} needs a mutation`);
}
