/** What the conformance suite needs of a server, and the small words its checks are written in. */
import assert from 'node:assert/strict';

import { compareTimestamp } from '../../core/time.ts';
import type { CreateHow, Handle, SetAttributes, Wcc } from '../file-system.ts';
import { Status } from '../file-system.ts';
import { NfsClient } from '../nfs-client.ts';
import type { NfsClientOptions } from '../nfs-client.ts';
import { NO_CHANGES } from '../nfs-wire.ts';
import type { CreateResult } from '../procedures/create.ts';
import type { ClientDirectoryEntry } from '../procedures/readdir.ts';

/** A running server, reached through real TCP. */
export interface ServerUnderTest {
  readonly host: string;
  readonly nfsPort: number;
  readonly mountPort: number;
  /** Port of its port mapper (TCP, and UDP where `udp`), or null when it has none. */
  readonly portmap: { readonly port: number; readonly udp: boolean } | null;
  /** Name of the export without slashes; writable, root not squashed, for `host`. */
  readonly exportName: string;
  /** Loopback address that no rule allows, or null. */
  readonly deniedAddress: string | null;
  /** Clean stop and start on the same data. Null: nothing survives. Ports may change: they are read again afterwards. */
  readonly restart: (() => Promise<void>) | null;
  /** Kill without warning and start again. Null: nothing survives. */
  readonly kill: (() => Promise<void>) | null;
  /** Instead of a connection to `host`: for several servers of one export, to cross them. */
  readonly connect?: (options: Partial<NfsClientOptions>) => Promise<NfsClient>;
  close(): Promise<void>;
}

/** What the server can, and how much work the checks do. */
export interface ConformanceOptions {
  /** Data outlive the process: `restart` and `kill` are there, and the checks that need them are declared. */
  readonly durable: boolean;
  /** Entries of the big directory (esxi.md: 20,000). */
  readonly directoryEntries: number;
  /** Bytes of the region written over and over (esxi.md: 1 GiB). */
  readonly regionBytes: number;
}

/** The suite's state: one server for all checks, one client that most of them use. */
export interface Suite {
  readonly server: ServerUnderTest;
  readonly client: NfsClient;
  readonly root: Handle;
  readonly options: ConformanceOptions;
  /** Another connection to the same server. The caller closes it. */
  connect(options?: Partial<NfsClientOptions>): Promise<NfsClient>;
  /** A fresh directory below the root. */
  directory(): Promise<Handle>;
  /** Connects the suite's client again after the server was restarted. */
  reconnect(): Promise<void>;
}

/** Gives the suite once it is open: checks are declared before. */
export type SuiteOf = () => Suite;

export const MODE_0600: SetAttributes = { ...NO_CHANGES, mode: 0o600 };
export const UNCHECKED: CreateHow = { mode: 'unchecked', attributes: MODE_0600 };
export const GUARDED: CreateHow = { mode: 'guarded', attributes: MODE_0600 };
/** ESXi's largest VMDK, 62 TB (esxi.md 4). */
export const VMDK_BYTES_MAX = 68_169_720_922_112;

/** Asserts that a result is OK and gives it. */
export function succeeded<T extends { readonly status: number }>(result: T): Extract<T, { readonly status: 0 }> {
  assert.equal(result.status, Status.OK);
  return result as Extract<T, { readonly status: 0 }>;
}

/** Asserts the status of a result that must have failed. */
export function failed(result: { readonly status: number }, ...statuses: Status[]): void {
  assert.ok((statuses as number[]).includes(result.status), `status ${result.status}, expected ${statuses.join(' or ')}`);
}

/** A new file: its handle, with the attributes that CREATE gave. */
export async function newFile(suite: Suite, directory: Handle, name: string | Uint8Array, how: CreateHow = GUARDED): Promise<Made> {
  return made(await suite.client.create(directory, name, how));
}

export interface Made {
  readonly handle: Handle;
  readonly fileid: number;
}

export function made(result: CreateResult): Made {
  const { handle, attributes } = succeeded(result);
  assert.ok(handle !== null && attributes !== null, 'handle and attributes of a new object are optional on the wire, but ESXi wants them');
  return { handle, fileid: attributes.fileid };
}

/** All entries of a directory, page by page, with the given page size. */
export async function listAll(client: NfsClient, directory: Handle, maxCountBytes: number, plus = true): Promise<ClientDirectoryEntry[]> {
  const entries: ClientDirectoryEntry[] = [];
  let cookie = 0n;
  let verifier: Uint8Array = Buffer.alloc(8);
  for (;;) {
    const page = succeeded(
      plus
        ? await client.readdirplus(directory, cookie, verifier, maxCountBytes, maxCountBytes)
        : await client.readdir(directory, cookie, verifier, maxCountBytes),
    );
    entries.push(...page.entries);
    verifier = page.cookieVerifier;
    if (page.eof) return entries;
    assert.ok(page.entries.length > 0, 'a page that is neither the last nor has entries is asked for for ever');
    cookie = page.entries.at(-1)!.cookie;
  }
}

/** Names of entries, without `.` and `..`, as latin1 text. */
export function namesOf(entries: readonly ClientDirectoryEntry[]): string[] {
  return entries.map((entry) => entry.name.toString('latin1')).filter((name) => name !== '.' && name !== '..');
}

/** wcc_data of a change: what it was before, what it is now, and that the change shows. */
export function assertChanged(wcc: Wcc, before: Wcc['after']): void {
  assert.ok(wcc.after !== null, 'attributes after the operation');
  if (wcc.before === null) return;
  assert.ok(before !== null);
  assert.deepEqual(wcc.before, { sizeBytes: before.sizeBytes, mtime: before.mtime, ctime: before.ctime });
  assert.ok(compareTimestamp(wcc.after.ctime, wcc.before.ctime) > 0, 'ctime moves with every change');
}

/** Restarts or kills the server, and connects the suite's client again. */
export async function bounce(suite: Suite, how: 'restart' | 'kill'): Promise<void> {
  const act = how === 'restart' ? suite.server.restart : suite.server.kill;
  assert.ok(act !== null, 'a durable server can be restarted and killed');
  await act();
  await suite.reconnect();
}

export async function openSuite(server: ServerUnderTest, options: ConformanceOptions): Promise<Suite & { close(): Promise<void> }> {
  const connect = (overrides: Partial<NfsClientOptions> = {}): Promise<NfsClient> =>
    server.connect?.({ timeoutMs: 60_000, ...overrides }) ??
    NfsClient.connect({ host: server.host, nfsPort: server.nfsPort, mountPort: server.mountPort, timeoutMs: 60_000, ...overrides });
  let client = await connect();
  let directories = 0;
  const run = process.hrtime.bigint().toString(36);
  const root = succeeded(await client.mount(`/${server.exportName}`)).handle;
  return {
    server,
    root,
    options,
    connect,
    get client() {
      return client;
    },
    async directory() {
      directories += 1;
      return made(await client.mkdir(root, `conformance-${run}-${directories}`, { mode: 0o755 })).handle;
    },
    async reconnect() {
      await client.close();
      client = await connect();
    },
    async close() {
      await client.close();
      await server.close();
    },
  };
}
