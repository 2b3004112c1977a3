/** Stored form of owner and router records (docs/formats/registry.md), checked when read. */
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../server/core/ids.ts';
import { FILEID_MIN } from './inode-record.ts';
import type { ClosedEpoch, OwnerRecord, Protection, Root, RouterRecord } from './ports.ts';
import { base64From, base64Of, corrupt, HEX_16, HEX_32, integerOf, listOf, memberOf, patternOf, recordOf, textOf } from './record-check.ts';

export const OBJECT_VERIFIER_BYTES = 8;
/** An object gains a closed epoch per change of owner or restart, and loses those below its checkpoint. */
export const CLOSED_EPOCHS_MAX = 65_536;
export const REPLICAS_MAX = 16;
export const REASON_CHARACTERS_MAX = 4_096;
export const CHECKPOINT_CHARACTERS_MAX = 1_024;
export const ADDRESSES_MAX = 64;
const STATES = ['running', 'recovering', 'halted'] as const;
const PROTECTIONS = ['clean', 'unprotected', 'protected'] as const;

/** An owner record with the highest counter ever given out or reserved for the object: the next claim goes above it. */
export interface OwnerEntry {
  readonly owner: OwnerRecord;
  readonly counterMax: number;
  /** With `moving`: the incarnation of the receiver that lived when the attempt began. No other one knows of the attempt, so it goes to no other one. */
  readonly receiver?: Incarnation;
}

export function jsonFromTerm(term: Term): unknown {
  return [term.generation, term.counter, term.nonce];
}

export function termFromJson(value: unknown, where: string, field: string): Term {
  const [generation, counter, nonce] = listOf(value, 3, where, field);
  return {
    generation: integerOf(generation, 0, Number.MAX_SAFE_INTEGER, where, `${field} generation`),
    counter: integerOf(counter, 0, Number.MAX_SAFE_INTEGER, where, `${field} counter`),
    nonce: patternOf(nonce, HEX_16, where, `${field} nonce`),
  };
}

export function jsonFromRoot(root: Root): unknown {
  return {
    checkpoint: root.checkpoint,
    uploadedSegment: root.uploadedSegment,
    uploadedSequence: root.uploadedSequence,
    closedEpochs: root.closedEpochs.map((epoch) => ({
      term: jsonFromTerm(epoch.term),
      lastSegment: epoch.lastSegment,
      lastSequence: epoch.lastSequence,
    })),
  };
}

export function rootFromJson(value: unknown, where: string): Root {
  const json = recordOf(value, where, 'root');
  return {
    checkpoint: json['checkpoint'] === null ? null : textOf(json['checkpoint'], CHECKPOINT_CHARACTERS_MAX, where, 'checkpoint'),
    uploadedSegment: countOf(json['uploadedSegment'], where, 'uploadedSegment'),
    uploadedSequence: countOf(json['uploadedSequence'], where, 'uploadedSequence'),
    closedEpochs: listOf(json['closedEpochs'], CLOSED_EPOCHS_MAX, where, 'closedEpochs').map((entry): ClosedEpoch => {
      const epoch = recordOf(entry, where, 'closed epoch');
      return {
        term: termFromJson(epoch['term'], where, 'closed term'),
        lastSegment: countOf(epoch['lastSegment'], where, 'lastSegment'),
        lastSequence: countOf(epoch['lastSequence'], where, 'lastSequence'),
      };
    }),
  };
}

export function jsonFromProtection(protection: Protection): unknown {
  return protection.kind === 'protected' ? { kind: protection.kind, replicas: protection.replicas } : { kind: protection.kind };
}

export function protectionFromJson(value: unknown, where: string): Protection {
  const json = recordOf(value, where, 'protection');
  const kind = memberOf(json['kind'], PROTECTIONS, where, 'protection');
  if (kind !== 'protected') return { kind };
  return {
    kind,
    replicas: listOf(json['replicas'], REPLICAS_MAX, where, 'replicas').map((id) => patternOf(id, HEX_32, where, 'replica') as RouterId),
  };
}

export function jsonFromState(state: OwnerRecord['state']): unknown {
  return state.kind === 'running' ? { kind: state.kind } : { kind: state.kind, reason: state.reason };
}

export function stateFromJson(value: unknown, where: string): OwnerRecord['state'] {
  const json = recordOf(value, where, 'state');
  const kind = memberOf(json['kind'], STATES, where, 'state');
  return kind === 'running' ? { kind } : { kind, reason: textOf(json['reason'], REASON_CHARACTERS_MAX, where, 'reason') };
}

export function jsonFromMoving(moving: OwnerRecord['moving']): Record<string, unknown> | null {
  return moving === null ? null : { from: moving.from, to: moving.to, attempt: jsonFromTerm(moving.attempt) };
}

export function movingFromJson(value: unknown, where: string): OwnerRecord['moving'] {
  if (value === null) return null;
  const json = recordOf(value, where, 'moving');
  return {
    from: patternOf(json['from'], HEX_32, where, 'moving from') as RouterId,
    to: patternOf(json['to'], HEX_32, where, 'moving to') as RouterId,
    attempt: termFromJson(json['attempt'], where, 'attempt'),
  };
}

export function jsonFromOwner(owner: OwnerRecord): Record<string, unknown> {
  return {
    fileid: owner.fileid,
    uuid: owner.uuid,
    router: owner.router,
    incarnation: owner.incarnation,
    term: jsonFromTerm(owner.term),
    state: jsonFromState(owner.state),
    moving: jsonFromMoving(owner.moving),
    root: jsonFromRoot(owner.root),
    protection: jsonFromProtection(owner.protection),
    verifier: base64From(owner.verifier),
  };
}

/** Inverse of `jsonFromOwner`. @throws ApplianceError `registry-corrupt`. */
export function ownerFromJson(value: unknown, where: string): OwnerRecord {
  const json = recordOf(value, where, 'owner');
  const verifier = base64Of(json['verifier'], OBJECT_VERIFIER_BYTES, where, 'verifier');
  if (verifier.byteLength !== OBJECT_VERIFIER_BYTES) corrupt(where, `verifier has ${verifier.byteLength} bytes`);
  return {
    fileid: integerOf(json['fileid'], FILEID_MIN, Number.MAX_SAFE_INTEGER, where, 'fileid') as FileId,
    uuid: patternOf(json['uuid'], HEX_32, where, 'uuid') as ObjectUuid,
    router: patternOf(json['router'], HEX_32, where, 'router') as RouterId,
    incarnation: patternOf(json['incarnation'], HEX_32, where, 'incarnation') as Incarnation,
    term: termFromJson(json['term'], where, 'term'),
    state: stateFromJson(json['state'], where),
    moving: movingFromJson(json['moving'], where),
    root: rootFromJson(json['root'], where),
    protection: protectionFromJson(json['protection'], where),
    verifier,
  };
}

export function jsonFromRouter(router: RouterRecord): Record<string, unknown> {
  return { ...router };
}

/** Inverse of `jsonFromRouter`. @throws ApplianceError `registry-corrupt`. */
export function routerFromJson(value: unknown, where: string): RouterRecord {
  const json = recordOf(value, where, 'router');
  const dead = json['dead'];
  if (typeof dead !== 'boolean') return corrupt(where, 'dead is not a boolean');
  return {
    id: patternOf(json['id'], HEX_32, where, 'id') as RouterId,
    incarnation: patternOf(json['incarnation'], HEX_32, where, 'incarnation') as Incarnation,
    addresses: listOf(json['addresses'], ADDRESSES_MAX, where, 'addresses').map((address) => textOf(address, 256, where, 'address')),
    version: textOf(json['version'], 256, where, 'version'),
    leaseCounter: countOf(json['leaseCounter'], where, 'leaseCounter'),
    dead,
  };
}

function countOf(value: unknown, where: string, field: string): number {
  return integerOf(value, 0, Number.MAX_SAFE_INTEGER, where, field);
}
