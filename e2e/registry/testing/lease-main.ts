/**
 * A process with a lease, for tests to stop and resume: prints a JSON line per look at the lease. Argument: port of Redis, leaseMs, milliseconds that the loop is blocked for
 * once (0: never).
 */
import { writeSync } from 'node:fs';

import { Member, redisSettings } from '../../../registry/redis/testing/linked-registry.ts';
import { processMonotonicMs, systemClock } from '../../../server/core/node-time.ts';

const [port = 0, leaseMs = 0, blockMs = 0] = process.argv.slice(2).map(Number);
const member = await Member.joined({ vpoolName: 'lease', settings: redisSettings([port], { leaseMs, commandTimeoutMs: 500 }) });
let blocked = blockMs === 0;

function look(): void {
  const { lease } = member.registry;
  writeSync(1, `${JSON.stringify({ atMs: processMonotonicMs(), valid: lease.valid, lapses: member.lapses.map((error) => error.message) })}\n`);
  if (!blocked) {
    blocked = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs);
    // Before anything else of this loop runs.
    look();
  }
}

process.on('SIGTERM', () => {
  void member[Symbol.asyncDispose]().then(() => process.exit(0));
});
look();
for (;;) {
  await systemClock.sleep(10);
  look();
}
