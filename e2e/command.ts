/** Running other programs from tests: output collected, a deadline always, and nothing left running. */
import { spawn } from 'node:child_process';

export interface CommandOptions {
  /** Kills the program and fails after this time. Default 60 s. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Written to its standard input; without it that is closed. */
  readonly input?: string | Uint8Array;
  /** Exit codes that are no failure. Default only 0. */
  readonly allowedCodes?: readonly number[];
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Runs `command` (program and arguments, no shell). @throws Error with its output when it fails or is too slow. */
export async function run(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const [program, ...args] = command;
  if (program === undefined) throw new Error('run: empty command');
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.environment },
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  // A program that exits without reading its input is judged by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  const timeoutMs = options.timeoutMs ?? 240_000;
  let tooSlow = false;
  const timer = setTimeout(() => {
    tooSlow = true;
    child.kill('SIGKILL');
  }, timeoutMs);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.once('error', reject);
  child.once('close', (code, signal) => {
    resolve(signal === null ? (code ?? -1) : 128);
  });
  try {
    const code = await promise;
    const errorText = Buffer.concat(stderr).toString();
    if (tooSlow) throw new Error(`${command.join(' ')}: not done after ${timeoutMs} ms\n${tail(stdout)}${errorText}`);
    if (!(options.allowedCodes ?? [0]).includes(code)) throw new Error(`${command.join(' ')}: exit code ${code}\n${tail(stdout)}${errorText}`);
    return { code, stdout: Buffer.concat(stdout), stderr: errorText };
  } finally {
    clearTimeout(timer);
  }
}

function tail(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).subarray(-4000).toString();
}
