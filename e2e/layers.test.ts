/**
 * Keeps the layers of docs/ARCHITECTURE.md (design section 3) by reading import lines: parts know each other's ports, never the
 * implementations; only the composition (main, router, fsck), e2e, bench and tests see concrete classes. Sockets, files and processes are
 * touched only by the adapters whose job that is, so that everything else runs under simulation.
 */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '..');

/** What a part may import besides itself, `server/core/` and Node: whole parts (ending in /) and port files. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  'server/core': [],
  'server/oncrpc': [],
  'server/nfsd': ['server/oncrpc/'],
  registry: [],
  cache: [],
  backends: [],
  // Pieces of a log on their way between routers are said in the peers' words.
  'server/object-log': ['server/object-router/peer-port.ts', 'registry/inode.ts', 'registry/ports.ts', 'backends/object-store.ts'],
  'server/volume-driver': [
    'server/object-router/driver-port.ts',
    'server/object-router/peer-port.ts',
    'server/object-log/',
    'registry/inode.ts',
    'registry/ports.ts',
    'backends/object-store.ts',
    'backends/put-verified.ts',
    'cache/block-cache.ts',
  ],
  'server/file-driver': [
    'server/object-router/driver-port.ts',
    'server/object-log/',
    'registry/inode.ts',
    'registry/ports.ts',
    'backends/object-store.ts',
    'backends/put-verified.ts',
    'cache/block-cache.ts',
    // Pieces are stored by the block engine, through its write-back port.
    'server/volume-driver/extent-map.ts',
    'server/volume-driver/object-names.ts',
    'server/volume-driver/write-back.ts',
  ],
  'server/object-router': [
    'server/cluster-port.ts',
    'server/nfsd/file-system.ts',
    'registry/inode.ts',
    'registry/ports.ts',
    'backends/object-store.ts',
  ],
  'server/peer': ['server/object-router/peer-port.ts', 'server/nfsd/file-system.ts', 'registry/ports.ts'],
  'server/settings': [],
  'server/metrics': ['server/cluster-port.ts', 'backends/store-observer.ts', 'server/nfsd/observer.ts', 'server/nfsd/file-system.ts'],
  'server/admin': ['server/router-port.ts', 'server/cluster-port.ts'],
  // PEM and tokens; whoever makes and checks certificates (the command, the peers) gets it from the composition.
  'server/cluster-ca': [],
  'server/cli': [
    'server/router-port.ts',
    'server/cluster-port.ts',
    'server/cluster-ca-port.ts',
    'server/fsck-port.ts',
    'server/vpool-port.ts',
    'backends/probe/probe-report.ts',
    'server/settings/',
    'server/admin/',
    'server/metrics/',
    'package.json',
  ],
  // Port files of the process, beside the composition.
  'server/router-port.ts': ['server/cluster-port.ts', 'backends/store-observer.ts', 'server/nfsd/observer.ts', 'server/settings/settings.ts'],
  'server/cluster-port.ts': [],
  'server/cluster-ca-port.ts': ['server/settings/settings.ts'],
  'server/fsck-port.ts': ['server/settings/settings.ts'],
  'server/vpool-port.ts': ['backends/probe/probe-report.ts', 'server/settings/settings.ts', 'server/settings/backend-settings.ts'],
};

/** These put concrete classes together (files directly in server/ that are no ports), or test them. */
const COMPOSITION = [/^server\/[^/]+(?<!-port)\.ts$/, /^(e2e|bench)\//, /\.(test|fuzz|fixture)\.ts$/, /\/testing\//, /(^|\/)conformance(\.ts$|\/)/];

/** Who may open sockets, files, threads, databases and processes. */
const ADAPTERS: readonly { readonly modules: RegExp; readonly files: readonly RegExp[] }[] = [
  {
    modules: /^node:(fs|fs\/promises)$/,
    files: [
      /^server\/core\/(node-disk|fail-points)\.ts$/,
      /^server\/settings\/load\.ts$/,
      /^server\/cli\/process-logger\.ts$/,
      /^server\/cluster-ca\/certificate-files\.ts$/,
      /^registry\/sqlite\//,
      /^registry\/redis\/redis-connection\.ts$/,
      /^backends\/(directory\/|upload-thread\/|swift\/ca-file\.ts$|probe\/server-time\.ts$|object-body\.ts$|file-part\.ts$)/,
    ],
  },
  {
    modules: /^node:(net|dgram|dns(\/promises)?)$/,
    files: [/^server\/oncrpc\//, /^server\/peer\//, /^server\/admin\//, /^backends\/tcp-reachable\.ts$/],
  },
  {
    // Peers speak HTTP/2 of their own (decision 0036); only their tests compare it with Node's.
    modules: /^node:(http|https|http2)$/,
    files: [
      /^server\/cli\/admin-client\.ts$/,
      /^server\/cluster-ca\/join-(server|client)\.ts$/,
      /^backends\/(swift\/swift-http|s3\/s3-client|probe\/server-time)\.ts$/,
    ],
  },
  {
    modules: /^node:tls$/,
    files: [/^server\/peer\//, /^server\/cluster-ca\/join-(server|client)\.ts$/, /^backends\/swift\/swift-http\.ts$/],
  },
  { modules: /^@aws-sdk\//, files: [/^backends\/s3\//] },
  { modules: /^node:sqlite$/, files: [/^registry\/sqlite\//] },
  { modules: /^ioredis$/, files: [/^registry\/redis\//] },
  { modules: /^node:worker_threads$/, files: [/^registry\/sqlite\//, /^registry\/redis\/lease-/, /^backends\/upload-thread\//] },
  { modules: /^node:child_process$/, files: [] },
  { modules: /^fastify$/, files: [/^server\/admin\//] },
  { modules: /^prom-client$/, files: [/^server\/metrics\//] },
  { modules: /^pino$/, files: [/^server\/cli\//] },
  { modules: /^commander$/, files: [/^server\/cli\//] },
  { modules: /^zod$/, files: [/^server\/(settings|admin|cluster-ca)\//] },
  { modules: /^yaml$/, files: [/^server\/settings\//] },
  { modules: /^@peculiar\/x509$/, files: [/^server\/cluster-ca\//] },
];

/** Parts of Node's socket and file modules that are pure. */
const PURE_NAMES = new Set(['isMarkedAsUntransferable', 'isIP', 'isIPv4', 'isIPv6', 'BlockList', 'SocketAddress']);

interface Import {
  readonly file: string;
  readonly line: number;
  /** As written: `./x.ts`, `node:fs`, `zod`. */
  readonly specifier: string;
  /** `import type` or only pure names. */
  readonly harmless: boolean;
}

/** Import and export-from lines, dynamic imports and module URLs (workers) of one file's text. */
function importsOf(file: string, text: string): Import[] {
  const found: Import[] = [];
  const statement =
    /^(?:import|export)\s+(type\s)?([^'";]*?)\s*from\s*'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)|\bnew URL\(\s*'(\.[^']+)'\s*,\s*import\.meta/gm;
  for (const match of text.matchAll(statement)) {
    const specifier = match[3] ?? match[4] ?? match[5] ?? match[6] ?? '';
    const names = /^\{(.*)\}$/s
      .exec(match[2] ?? '')?.[1]
      ?.split(',')
      .map((name) => name.trim());
    const pure = names?.every((name) => name === '' || name.startsWith('type ') || PURE_NAMES.has(name)) ?? false;
    found.push({ file, line: text.slice(0, match.index).split('\n').length, specifier, harmless: match[1] !== undefined || pure });
  }
  return found;
}

/** The part that a file belongs to: `server/nfsd`, `registry`; files directly in `server/` are parts of their own. */
function partOf(file: string): string {
  const [top = '', second = ''] = file.split('/');
  return top === 'server' ? `${top}/${second}` : top;
}

function violation(entry: Import): string | null {
  const { file, specifier } = entry;
  if (COMPOSITION.some((pattern) => pattern.test(file))) return null;
  const where = `${file}:${entry.line} imports ${specifier}`;
  if (!specifier.startsWith('.')) {
    const rule = ADAPTERS.find((adapter) => adapter.modules.test(specifier));
    if (rule === undefined) return specifier.startsWith('node:') ? null : `${where}, a package that no part is known to need`;
    return entry.harmless || rule.files.some((pattern) => pattern.test(file)) ? null : `${where}, which only adapters may`;
  }
  const target = normalize(join(dirname(file), specifier));
  const part = partOf(file);
  if (partOf(target) === part || target.startsWith('server/core/')) return null;
  const allowed = ALLOWED[part];
  if (allowed === undefined) return `${file}: the part ${part} has no entry in ALLOWED`;
  const ok = allowed.some((prefix) => (prefix.endsWith('/') ? target.startsWith(prefix) : target === prefix));
  return ok ? null : `${where}: ${part} may import only ${['itself', 'server/core/', ...allowed].join(', ')}`;
}

const sources = globSync('{server,registry,cache,backends,e2e,bench}/**/*.ts', { cwd: ROOT });
const imports = sources.flatMap((file) => importsOf(file, readFileSync(join(ROOT, file), 'utf8')));

test('every part imports only what the layers allow', () => {
  assert.deepEqual(
    imports.map(violation).filter((message) => message !== null),
    [],
  );
});

test('oncrpc and nfsd can be published on their own: nothing of ours but each other and core', () => {
  const own = imports.filter((entry) => /^server\/(oncrpc|nfsd|core)\//.test(entry.file) && entry.specifier.startsWith('.'));
  assert.ok(own.length > 20);
  const strangers = own
    .filter((entry) => !entry.file.endsWith('.test.ts'))
    .map((entry) => ({ ...entry, target: normalize(join(dirname(entry.file), entry.specifier)) }))
    .filter((entry) => !/^server\/(oncrpc|nfsd|core)\//.test(entry.target));
  assert.deepEqual(strangers, []);
});

test('relative imports name the .ts file that exists', () => {
  const wrong = imports
    .filter((entry) => entry.specifier.startsWith('.') && entry.file !== 'e2e/layers.test.ts')
    .filter((entry) => !/\.(ts|json)$/.test(entry.specifier) || !existsSync(join(ROOT, dirname(entry.file), entry.specifier)))
    .map((entry) => `${entry.file}:${entry.line} ${entry.specifier}`);
  assert.deepEqual(wrong, []);
});

test('nothing but tests imports tests or testing folders', () => {
  const wrong = imports.filter(
    (entry) => !COMPOSITION.some((pattern) => pattern.test(entry.file)) && /\.test\.ts$|\/testing\//.test(entry.specifier),
  );
  assert.deepEqual(wrong, []);
});

test('the rules bite: forbidden imports of every kind are seen', () => {
  const forbidden = [
    ['server/nfsd/x.ts', "import type { Registry } from '../../registry/ports.ts';"],
    ['server/nfsd/x.ts', "export { y } from '../volume-driver/y.ts';"],
    ['server/core/x.ts', "import { y } from '../oncrpc/y.ts';"],
    ['server/object-router/x.ts', "const y = await import('../../registry/sqlite/y.ts');"],
    ['server/object-log/x.ts', "new Worker(new URL('../../backends/directory/y.ts', import.meta.url))"],
    ['server/object-log/x.ts', "import * as fs from 'node:fs';"],
    ['server/volume-driver/x.ts', "import {\n  connect,\n  isIP,\n} from 'node:net';"],
    ['server/object-router/x.ts', "import { z } from 'zod';"],
    ['server/peer/x.ts', "import { connect } from 'node:http2';"],
    ['cache/x.ts', "import left from 'left-pad';"],
  ] as const;
  for (const [file, text] of forbidden) {
    assert.equal(
      importsOf(file, text)
        .map(violation)
        .filter((message) => message !== null).length,
      1,
      text,
    );
  }
  const fine =
    "import { isIP } from 'node:net';\nimport type { Socket } from 'node:net';\nimport { createHash } from 'node:crypto';\nimport { a } from './a.ts';";
  assert.deepEqual(importsOf('server/nfsd/x.ts', fine).map(violation), [null, null, null, null]);
});
