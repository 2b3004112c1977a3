/**
 * Stored form of outcomes (docs/formats/registry.md): what a repeated operation id is answered with. First answers take the same way, so a
 * repeated one cannot differ. Checked when read.
 */
import { inodeFromJson, jsonFromInode } from './inode-record.ts';
import type { Inode } from './inode.ts';
import { jsonFromOwner, jsonFromRouter, ownerFromJson, routerFromJson } from './owner-record.ts';
import type {
  CreateOutcome,
  DirectoryChange,
  InlineWriteOutcome,
  LinkOutcome,
  OwnerOutcome,
  OwnerRecord,
  RemoveOutcome,
  RenameOutcome,
  RouterRecord,
  SetAttributesOutcome,
} from './ports.ts';
import { corrupt, jsonOf, memberOf, recordOf } from './record-check.ts';

/** Verbs of the registry and what each answers. */
export interface Outcomes {
  createFile: CreateOutcome;
  createDirectory: CreateOutcome;
  createSymlink: CreateOutcome;
  remove: RemoveOutcome;
  removeDirectory: RemoveOutcome;
  rename: RenameOutcome;
  link: LinkOutcome;
  setAttributes: SetAttributesOutcome;
  writeInline: InlineWriteOutcome;
  flipToFile: SetAttributesOutcome;
  dropInlineBase: null;
  putOwnedAttributes: null;
  dropTombstone: null;
  claim: OwnerOutcome;
  beginMove: OwnerOutcome;
  transfer: OwnerOutcome;
  update: OwnerOutcome;
  join: RouterRecord;
  renew: RouterRecord;
  markDead: 'dead' | 'conflict';
  leave: null;
  release: null;
}
export type Verb = keyof Outcomes;

/** What a field of an outcome holds. */
export type OutcomeField = 'inode' | 'change' | 'inode-or-null' | 'owner' | 'which';
type Fields = Readonly<Record<string, OutcomeField>>;

const REFUSALS = { stale: {}, 'not-directory': { inode: 'inode' } } as const satisfies Record<string, Fields>;
const CREATE = {
  created: { inode: 'inode', directory: 'change' },
  exists: { inode: 'inode', directory: 'inode' },
  ...REFUSALS,
} as const satisfies Shape;
const REMOVE = {
  removed: { inode: 'inode', directory: 'change' },
  absent: { directory: 'inode' },
  'is-directory': { directory: 'inode' },
  'not-a-directory': { directory: 'inode' },
  'not-empty': { directory: 'inode' },
  ...REFUSALS,
} as const satisfies Shape;
const BOTH = { from: 'inode', to: 'inode' } as const satisfies Fields;
const SET = {
  changed: { before: 'inode', after: 'inode' },
  'guard-mismatch': { inode: 'inode' },
  'class-changed': { inode: 'inode' },
  stale: {},
} as const satisfies Shape;
const OWNER = { done: { owner: 'owner' }, conflict: { owner: 'owner' }, gone: {} } as const satisfies Shape;
const CLAIM = { ...OWNER, 'owner-alive': { owner: 'owner' } } as const satisfies Shape;
type Shape = Readonly<Record<string, Fields>>;

/** For verbs that answer with a union: the fields of each kind. */
export const OUTCOME_SHAPES: Partial<Record<Verb, Shape>> = {
  createFile: CREATE,
  createDirectory: CREATE,
  createSymlink: CREATE,
  remove: REMOVE,
  removeDirectory: REMOVE,
  rename: {
    renamed: { inode: 'inode', from: 'change', to: 'change', replaced: 'inode-or-null' },
    unchanged: BOTH,
    absent: BOTH,
    'target-not-empty': BOTH,
    'target-exists': BOTH,
    invalid: BOTH,
    stale: { which: 'which' },
    'not-directory': { which: 'which' },
  },
  link: {
    linked: { inode: 'inode', directory: 'change' },
    exists: { inode: 'inode', directory: 'inode' },
    'is-directory': { directory: 'inode' },
    'too-many-links': { directory: 'inode' },
    'object-stale': {},
    ...REFUSALS,
  },
  setAttributes: SET,
  writeInline: { written: { before: 'inode', after: 'inode' }, 'too-large': { inode: 'inode' }, 'class-changed': { inode: 'inode' }, stale: {} },
  flipToFile: SET,
  claim: CLAIM,
  beginMove: OWNER,
  transfer: OWNER,
  update: OWNER,
};

const VERBS = {
  createFile: 0,
  createDirectory: 0,
  createSymlink: 0,
  remove: 0,
  removeDirectory: 0,
  rename: 0,
  link: 0,
  setAttributes: 0,
  writeInline: 0,
  flipToFile: 0,
  dropInlineBase: 0,
  putOwnedAttributes: 0,
  dropTombstone: 0,
  claim: 0,
  beginMove: 0,
  transfer: 0,
  update: 0,
  join: 0,
  renew: 0,
  markDead: 0,
  leave: 0,
  release: 0,
} as const satisfies Record<Verb, 0>;

/** Whether a stored name is that of a verb. */
export function isVerb(name: string): name is Verb {
  return Object.hasOwn(VERBS, name);
}

/** JSON text of an outcome. */
export function encodeOutcome<V extends Verb>(verb: V, outcome: Outcomes[V]): string {
  const shape = OUTCOME_SHAPES[verb];
  if (shape === undefined) return JSON.stringify(verb === 'join' || verb === 'renew' ? jsonFromRouter(outcome as RouterRecord) : outcome);
  const source = outcome as { readonly kind: string } & Readonly<Record<string, unknown>>;
  const json: Record<string, unknown> = { kind: source.kind };
  const fields: Fields = shape[source.kind] ?? {};
  for (const name of Object.keys(fields)) json[name] = jsonFromField(fields[name] ?? 'which', source[name]);
  return JSON.stringify(json);
}

function jsonFromField(field: OutcomeField, value: unknown): unknown {
  switch (field) {
    case 'inode':
      return jsonFromInode(value as Inode);
    case 'inode-or-null':
      return value === null ? null : jsonFromInode(value as Inode);
    case 'change':
      return { before: jsonFromInode((value as DirectoryChange).before), after: jsonFromInode((value as DirectoryChange).after) };
    case 'owner':
      return jsonFromOwner(value as OwnerRecord);
    case 'which':
      return value;
  }
}

/** Inverse of `encodeOutcome`. `where` names the place in messages. @throws ApplianceError `registry-corrupt`. */
export function decodeOutcome<V extends Verb>(verb: V, text: unknown, where: string): Outcomes[V] {
  const json = jsonOf(text, where, 'outcome');
  return outcomeFromJson(verb, json, where) as Outcomes[V];
}

function outcomeFromJson(verb: Verb, json: unknown, where: string): unknown {
  const shape = OUTCOME_SHAPES[verb];
  if (shape !== undefined) {
    const source = recordOf(json, where, 'outcome');
    const kind = memberOf(source['kind'], Object.keys(shape), where, 'kind');
    const outcome: Record<string, unknown> = { kind };
    const fields: Fields = shape[kind] ?? {};
    for (const name of Object.keys(fields)) outcome[name] = fieldFromJson(fields[name] ?? 'which', source[name], where);
    return outcome;
  }
  switch (verb) {
    case 'join':
    case 'renew':
      return routerFromJson(json, where);
    case 'markDead':
      return memberOf(json, ['dead', 'conflict'], where, 'outcome');
    default:
      return json === null ? null : corrupt(where, 'outcome is not null');
  }
}

function fieldFromJson(field: OutcomeField, value: unknown, where: string): unknown {
  switch (field) {
    case 'inode':
      return inodeFromJson(value, where);
    case 'inode-or-null':
      return value === null ? null : inodeFromJson(value, where);
    case 'change': {
      const change = recordOf(value, where, 'change');
      return { before: inodeFromJson(change['before'], where), after: inodeFromJson(change['after'], where) };
    }
    case 'owner':
      return ownerFromJson(value, where);
    case 'which':
      return memberOf(value, ['from', 'to'], where, 'which');
  }
}
