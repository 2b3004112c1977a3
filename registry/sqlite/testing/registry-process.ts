/**
 * A registry in a process of its own, for tests that kill it or take its disk away. Run as a program it serves commands (JSON lines on
 * stdin, one answer line each on stdout, in the order in which they are done); imported, it is the side that drives such a process.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { createInterface } from 'node:readline';

import type { Incarnation, RouterId } from '../../../server/core/ids.ts';
import { silentLogger } from '../../../server/core/logger.ts';
import { systemClock, systemRandom } from '../../../server/core/node-time.ts';
import { timestampOf } from '../../../server/core/time.ts';
import type { Mutation } from '../../ports.ts';
import { openSqliteRegistry } from '../sqlite-registry.ts';

export interface Command {
  readonly do: 'create' | 'reads-during-create' | 'chmod' | 'mode' | 'names' | 'health' | 'shell' | 'close';
  /** Of the file, or the script. */
  readonly text?: string;
  readonly operationId?: string;
}
export interface Reply {
  readonly kind?: string;
  readonly error?: string;
  readonly names?: readonly string[];
  readonly health?: string | null;
  readonly reads?: number;
  readonly mode?: number;
  readonly text?: string | undefined;
}

export const PROCESS_ROUTER = 'a'.repeat(32) as RouterId;

/** Drives a registry process. */
export class RegistryProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #replies: AsyncIterator<string>;
  readonly #lines: ReturnType<typeof createInterface>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    if (child.stdout === null) throw new Error('the process has no stdout');
    this.#lines = createInterface({ input: child.stdout });
    this.#replies = this.#lines[Symbol.asyncIterator]();
  }

  /** Starts it on a database file. `mount`: a shell script that prepares a private mount table first (needs root). */
  static async start(path: string, options: { failPoints?: string; mount?: string } = {}): Promise<RegistryProcess> {
    const node = [process.execPath, import.meta.filename, path];
    const command =
      options.mount === undefined
        ? node
        : ['unshare', '--mount', '--propagation', 'private', 'sh', '-euc', `${options.mount}\nexec "$@"`, 'sh', ...node];
    const child = spawn(command[0] ?? '', command.slice(1), {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, VFERRY_FAIL_POINTS: options.failPoints ?? '' },
    });
    const started = new RegistryProcess(child);
    await started.reply();
    return started;
  }

  send(command: Command): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** The next answer; null when the process has ended. */
  async reply(): Promise<Reply | null> {
    const next = await this.#replies.next();
    return next.done === true ? null : (JSON.parse(next.value) as Reply);
  }

  async ask(command: Command): Promise<Reply> {
    this.send(command);
    return (await this.reply()) ?? { error: 'the process ended' };
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.ended();
    this.#lines.close();
  }
}

async function serve(path: string): Promise<void> {
  const incarnation = systemRandom.bytes(16).toString('hex') as Incarnation;
  const registry = await openSqliteRegistry({ path, vpoolName: 'vpool1', clock: systemClock, random: systemRandom, logger: silentLogger });
  const { namespace } = registry;
  const mutation = (operationId: string | undefined): Mutation => ({
    operationId: operationId ?? null,
    incarnation,
    now: timestampOf(systemClock.wallMs()),
    notAfterMs: Infinity,
  });
  const file = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null } as const;
  const create = (command: Command): Promise<{ kind: string }> =>
    namespace.createFile(mutation(command.operationId), namespace.root, Buffer.from(command.text ?? ''), file);
  const answer = (reply: Reply): void => void fs.writeSync(1, `${JSON.stringify(reply)}\n`);

  const execute = async (command: Command): Promise<Reply> => {
    switch (command.do) {
      case 'create':
        return { kind: (await create(command)).kind, text: command.text };
      case 'reads-during-create': {
        let done = false;
        const created = create(command).finally(() => (done = true));
        let reads = 0;
        while (!done) {
          await new Promise((resolve) => setImmediate(resolve));
          namespace.inode(namespace.root, null);
          reads += 1;
        }
        return { kind: (await created).kind, reads };
      }
      case 'chmod': {
        const changes = { mode: Number(command.text), uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };
        return { kind: (await namespace.setAttributes(mutation(command.operationId), namespace.root, changes, null, null)).kind };
      }
      case 'mode':
        return { mode: namespace.inode(namespace.root, null)?.mode ?? 0 };
      case 'names': {
        const listed = namespace.entries(namespace.root, 0, 1_000_000);
        return { names: listed.kind === 'entries' ? listed.entries.map((entry) => Buffer.from(entry.name).toString()) : [] };
      }
      case 'health':
        return { health: registry.health() };
      case 'shell':
        execFileSync('sh', ['-euc', command.text ?? ''], { stdio: ['ignore', 'ignore', 'inherit'] });
        return {};
      case 'close':
        await registry[Symbol.asyncDispose]();
        return {};
    }
  };

  await registry.membership.join(PROCESS_ROUTER, incarnation, [], 'test');
  answer({ kind: 'ready' });
  for await (const line of createInterface({ input: process.stdin })) {
    // Not awaited: commands of one line after another are outstanding together.
    execute(JSON.parse(line) as Command).then(answer, (error: unknown) =>
      answer({ error: error instanceof Error && 'code' in error ? String(error.code) : String(error) }),
    );
  }
}

const path = process.argv[2];
if (import.meta.main && path !== undefined) await serve(path);
