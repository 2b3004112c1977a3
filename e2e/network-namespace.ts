/**
 * A private network with nothing but its own loopback: there 111 and 2049 are free whatever this machine runs, so a router can be its own
 * port mapper and clients that know no other port (QEMU's nfs://, rpcinfo) find it. Needs root.
 */
import { randomBytes } from 'node:crypto';

import { run } from './command.ts';

export class NetworkNamespace implements AsyncDisposable {
  readonly name: string;
  private constructor(name: string) {
    this.name = name;
  }

  static async create(): Promise<NetworkNamespace> {
    const name = `vferry-e2e-${process.pid}-${randomBytes(3).toString('hex')}`;
    await run(['ip', 'netns', 'add', name]);
    const namespace = new NetworkNamespace(name);
    try {
      await run(['ip', '-n', name, 'link', 'set', 'lo', 'up']);
    } catch (error) {
      await namespace[Symbol.asyncDispose]();
      throw error;
    }
    return namespace;
  }

  /** What to put in front of a command to run it inside; the command keeps the pid of the prefix (ip execs it). */
  get prefix(): readonly string[] {
    return ['ip', 'netns', 'exec', this.name];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run(['ip', 'netns', 'del', this.name]);
  }
}
