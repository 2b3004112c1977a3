/** The registry's worker, with a fatal disease: it ends at its fifth message, without an answer. */
import { parentPort } from 'node:worker_threads';

let messages = 0;
parentPort?.on('message', () => {
  messages += 1;
  if (messages === 5) process.exit(7);
});
await import('../registry-worker.ts');
