/** A SQLite registry in a directory of its own, for tests. */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { silentLogger } from '../../../server/core/logger.ts';
import { systemClock, systemRandom } from '../../../server/core/node-time.ts';
import type { Clock } from '../../../server/core/time.ts';
import type { RegistryUnderTest } from '../../conformance/world.ts';
import { openSqliteRegistry, type SqliteRegistry, type SqliteRegistrySettings } from '../sqlite-registry.ts';

/** A wall clock that moves only when told; timers are real. */
export class TestClock implements Clock {
  #wallMs = 1_800_000_000_000.5;
  wallMs(): number {
    return this.#wallMs;
  }
  advance(byMs: number): void {
    this.#wallMs += byMs;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs();
  }
  after(delayMs: number, callback: () => void): () => void {
    return systemClock.after(delayMs, callback);
  }
  soon(callback: () => void): void {
    systemClock.soon(callback);
  }
  sleep(delayMs: number): Promise<void> {
    return systemClock.sleep(delayMs);
  }
}

export class TestRegistry implements RegistryUnderTest {
  readonly directory: string;
  readonly clock = new TestClock();
  readonly #settings: SqliteRegistrySettings | undefined;
  #registry: SqliteRegistry | null = null;

  private constructor(directory: string, settings?: SqliteRegistrySettings) {
    this.directory = directory;
    this.#settings = settings;
  }

  static async open(settings?: SqliteRegistrySettings): Promise<TestRegistry> {
    const registry = new TestRegistry(fs.mkdtempSync(join(tmpdir(), 'vferry-registry-')), settings);
    try {
      await registry.start();
    } catch (error) {
      fs.rmSync(registry.directory, { recursive: true });
      throw error;
    }
    return registry;
  }

  get path(): string {
    return join(this.directory, 'registry.db');
  }

  get registry(): SqliteRegistry {
    if (this.#registry === null) throw new Error('the registry is closed');
    return this.#registry;
  }

  async start(): Promise<void> {
    const options = { path: this.path, vpoolName: 'vpool1', clock: this.clock, random: systemRandom, logger: silentLogger };
    this.#registry = await openSqliteRegistry(this.#settings === undefined ? options : { ...options, settings: this.#settings });
  }

  async stop(): Promise<void> {
    await this.#registry?.[Symbol.asyncDispose]();
    this.#registry = null;
  }

  async reopen(): Promise<void> {
    await this.stop();
    await this.start();
  }

  wallMs(): number {
    return this.clock.wallMs();
  }

  advanceWallMs(byMs: number): void {
    this.clock.advance(byMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}
