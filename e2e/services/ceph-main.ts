/** `node e2e/services/ceph-main.ts DIRECTORY`: Ceph for trying things by hand; runs until SIGINT or SIGTERM, its data stays in the directory. */
import { once } from 'node:events';

import { CephService } from './ceph.ts';

const directory = process.argv[2];
if (directory === undefined) throw new Error('usage: ceph-main.ts DIRECTORY');
await using ceph = await CephService.start({ directory });
process.stdout.write(
  [
    `S3:    ${ceph.s3Endpoint}  access key ${ceph.accessKeyId}  secret ${ceph.secretAccessKey}  (path style)`,
    `Swift: ${ceph.swiftAuthUrl}  user ${ceph.swiftUser}  key ${ceph.swiftKey}`,
    'Ctrl-C ends it.',
    '',
  ].join('\n'),
);
// Signals alone do not keep Node running.
const alive = setInterval(() => undefined, 60_000);
await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
clearInterval(alive);
