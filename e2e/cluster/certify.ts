/** Certificates for the routers of a test cluster whose way to each other is not loopback: what `vferry cluster init` and `join` do, without the commands. */
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';

import { makeAuthority, makeRequest, makeRevocations, signRequest } from '../../server/cluster-ca/authority.ts';
import { CertificateFiles } from '../../server/cluster-ca/certificate-files.ts';
import { systemClock, systemRandom } from '../../server/core/node-time.ts';
import { routerIdOf } from '../../server/data-directory.ts';

/** Into `cluster/` of each data directory, which gets an identity if it has none. */
export async function certify(dataDirectories: readonly string[]): Promise<void> {
  const dependencies = { crypto: webcrypto, nowMs: systemClock.wallMs() };
  const authority = await makeAuthority(dependencies, 'test');
  const revocations = await makeRevocations(dependencies, authority, []);
  for (const directory of dataDirectories) {
    const { request, key } = await makeRequest(dependencies, routerIdOf(directory, systemRandom));
    const { certificate } = await signRequest(dependencies, authority, request);
    new CertificateFiles(join(directory, 'cluster')).write({ authority: authority.certificate, certificate, key, revocations });
  }
}
