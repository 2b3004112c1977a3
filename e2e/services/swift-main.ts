/** `node e2e/services/swift-main.ts DIRECTORY [--tls]`: real Swift for a person; prints how to reach it, runs until SIGINT or SIGTERM. */
import { resolve } from 'node:path';

import { SwiftService } from './swift.ts';

const [directory, flag] = process.argv.slice(2);
if (directory === undefined || (flag !== undefined && flag !== '--tls')) {
  process.stderr.write('usage: node e2e/services/swift-main.ts DIRECTORY [--tls]\n');
  process.exitCode = 2;
} else {
  const ended = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ended.resolve());
  await using service = await SwiftService.start({ directory: resolve(directory), tls: flag === '--tls' });
  const lines = [
    `auth URL     ${service.authUrl}`,
    `user         ${service.user}`,
    `key          ${service.key}`,
    `storage URL  ${service.storageUrl}`,
    `S3 endpoint  ${service.s3Endpoint}  (access key ${service.user}, secret ${service.key}, region ${service.s3Region}, path style)`,
    ...(service.caFile === null ? [] : [`CA file      ${service.caFile}`]),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
  const alive = setInterval(() => undefined, 60_000);
  await ended.promise;
  clearInterval(alive);
}
