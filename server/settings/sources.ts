/**
 * Where settings come from: a YAML file, `VFERRY_*` environment variables, flags. Each source becomes a tree of raw values and remembers
 * where every value was written, for messages. Validation is not done here.
 */
import { LineCounter, isMap, isPair, isScalar, isSeq, parseDocument } from 'yaml';

import { settingKeys } from './schema.ts';
import { SettingsError } from './settings-error.ts';
import { similarWord } from './similar-word.ts';

/** Raw values by key path, without a prototype: a key `__proto__` is a key like any other. */
export interface RawTree {
  [key: string]: unknown;
}

export interface Origin {
  readonly kind: 'file' | 'environment' | 'flag';
  /** For people: `vferry.yaml:3:9`, `VFERRY_NFS_PORT`, `--nfs-port`. */
  readonly label: string;
}

/** `origins` has every key path of `tree`, sections included. */
export interface Source {
  readonly tree: RawTree;
  readonly origins: ReadonlyMap<string, Origin>;
}

/** Variables that are no settings but are read by other parts: the file's name, fault injection (`core/fail-points.ts`), and what a router that began anew knows (`cli/serve.ts`). */
const OTHER_VARIABLES = new Set(['VFERRY_CONFIG', 'VFERRY_FAIL_POINTS', 'VFERRY_BEGUN_ANEW']);
const SECRETS = new Set(settingKeys.filter((entry) => entry.setting.secret === true).map((entry) => entry.key));
const FILE_CHARACTERS_MAX = 1024 * 1024;

/** Settings from `VFERRY_*` variables; all others are ignored. @throws SettingsError on an unknown one: it is misspelt or of another version. */
export function environmentSource(environment: Readonly<Record<string, string | undefined>>): Source {
  const source = newSource();
  const problems: string[] = [];
  const byVariable = new Map(settingKeys.map((entry) => [entry.variable, entry.key]));
  for (const [variable, text] of Object.entries(environment)) {
    if (!variable.startsWith('VFERRY_') || OTHER_VARIABLES.has(variable) || text === undefined) continue;
    const key = byVariable.get(variable);
    if (key === undefined) problems.push(`${variable}: unknown environment variable${hint(similarWord(variable, [...byVariable.keys()]))}`);
    else put(source, key, text, { kind: 'environment', label: variable });
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return source;
}

/** Settings from flags that were given, by key: `{ 'nfs.port': '2049' }`. */
export function flagSource(flags: ReadonlyMap<string, string>, labels: ReadonlyMap<string, string>): Source {
  const source = newSource();
  for (const [key, text] of flags) put(source, key, text, { kind: 'flag', label: labels.get(key) ?? key });
  return source;
}

/** Settings from the text of a YAML 1.2 file. @throws SettingsError naming line and column of every syntax error. */
export function fileSource(name: string, text: string): Source {
  if (text.length > FILE_CHARACTERS_MAX) throw new SettingsError([`${name}: more than ${FILE_CHARACTERS_MAX} characters; this is no settings file`]);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, version: '1.2' });
  const at = (offset: number | undefined): string => {
    const { line, col } = lines.linePos(offset ?? 0);
    return `${name}:${line}:${col}`;
  };
  const problems = [...document.errors, ...document.warnings].map((error) => `${at(error.pos[0])}: ${error.message}`);
  if (problems.length > 0) throw new SettingsError(problems);

  const source = newSource();
  const visit = (node: unknown, path: string): unknown => {
    const offset = (node as { range?: readonly number[] } | null)?.range?.[0];
    if (isScalar(node)) {
      // YAML reads 010, 0x10, 0o10, 1e3, .5 and +5 as numbers that not everybody expects.
      if (typeof node.value === 'number' && !/^-?(0|[1-9]\d*)(\.\d+)?$/.test(node.source ?? '')) {
        const shown = SECRETS.has(path) ? 'set' : node.source;
        problems.push(`${at(offset)}: ${path} is ${shown}; write numbers in plain decimal without leading zeros, and text in quotes`);
      }
      return node.value;
    }
    if (isSeq(node)) return node.items.map((item) => visit(item, path));
    if (isMap(node)) {
      const tree = newTree();
      for (const pair of node.items) {
        if (!isPair(pair) || !isScalar(pair.key) || typeof pair.key.value !== 'string') {
          problems.push(`${at(offset)}: every key must be plain text`);
          continue;
        }
        const key = pair.key.value;
        const child = path === '' ? key : `${path}.${key}`;
        source.origins.set(child, { kind: 'file', label: at(pair.key.range?.[0]) });
        tree[key] = pair.value === null ? null : visit(pair.value, child);
      }
      return tree;
    }
    if (node === null) return null;
    problems.push(`${at(offset)}: aliases (*name) are not supported; write the value again`);
    return null;
  };
  const root = visit(document.contents, '');
  if (root !== null && typeof root === 'object' && !Array.isArray(root)) Object.assign(source.tree, withoutEmptySections(root as RawTree));
  else if (root !== null) problems.push(`${at(document.contents?.range?.[0])}: a settings file is a mapping of sections, such as "nfs:"`);
  if (problems.length > 0) throw new SettingsError(problems);
  return source;
}

/** `nfs:` with all its keys commented out is null in YAML; it means a section without keys. Only sections: `nfs.port:` without a value stays an error. */
function withoutEmptySections(tree: RawTree): RawTree {
  const leaves = new Set(settingKeys.map((entry) => entry.key));
  const clean = (node: RawTree, prefix: string): RawTree => {
    const result = newTree();
    for (const [key, value] of Object.entries(node)) {
      const path = prefix + key;
      if (value === null && !leaves.has(path)) result[key] = [...leaves].some((leaf) => leaf.startsWith(`${path}.`)) ? newTree() : null;
      else result[key] = isTree(value) ? clean(value, `${path}.`) : value;
    }
    return result;
  };
  return clean(tree, '');
}

/** Later sources win, key by key; lists are replaced, not joined. */
export function mergeSources(sources: readonly Source[]): Source {
  const merged = newSource();
  const mergeInto = (target: RawTree, tree: RawTree): void => {
    for (const [key, value] of Object.entries(tree)) {
      const present = target[key];
      if (isTree(value) && isTree(present)) mergeInto(present, value);
      else target[key] = isTree(value) ? structuredCopy(value) : value;
    }
  };
  for (const source of sources) {
    mergeInto(merged.tree, source.tree);
    for (const [key, origin] of source.origins) merged.origins.set(key, origin);
  }
  return merged;
}

function structuredCopy(tree: RawTree): RawTree {
  const copy = newTree();
  for (const [key, value] of Object.entries(tree)) copy[key] = isTree(value) ? structuredCopy(value) : value;
  return copy;
}

function isTree(value: unknown): value is RawTree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function newTree(): RawTree {
  return Object.create(null) as RawTree;
}

function newSource(): { tree: RawTree; origins: Map<string, Origin> } {
  return { tree: newTree(), origins: new Map() };
}

function put(source: { tree: RawTree; origins: Map<string, Origin> }, key: string, text: string, origin: Origin): void {
  const parts = key.split('.');
  const last = parts.pop() ?? '';
  let tree = source.tree;
  for (const part of parts) {
    const next = tree[part];
    if (isTree(next)) tree = next;
    else tree[part] = tree = newTree();
  }
  tree[last] = text;
  source.origins.set(key, origin);
}

/** ` (did you mean x?)`, or nothing. */
export function hint(word: string | null): string {
  return word === null ? '' : ` (did you mean ${word}?)`;
}
