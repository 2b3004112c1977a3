/**
 * What every server built from nfsd and some FileSystem must do, seen from outside through TCP: the checklist of nfs-servers.md 4.3
 * (`4.3/N` in titles) and the single-router checks of esxi.md 10 (`esxi N`). Runs against any server that `open` starts.
 */
import { after, before, describe } from 'node:test';

import { dataChecks } from './conformance/data-checks.ts';
import { directoryChecks } from './conformance/directory-checks.ts';
import { durabilityChecks } from './conformance/durability-checks.ts';
import { lockChecks } from './conformance/lock-checks.ts';
import { namespaceChecks } from './conformance/namespace-checks.ts';
import { renameChecks } from './conformance/rename-checks.ts';
import { openSuite } from './conformance/server-under-test.ts';
import type { ConformanceOptions, ServerUnderTest } from './conformance/server-under-test.ts';
import { transportChecks } from './conformance/transport-checks.ts';

/** Declares the suite. `open` starts one server, which all checks share; it is closed at the end. */
export function fileSystemConformance(name: string, open: () => Promise<ServerUnderTest>, options: ConformanceOptions): void {
  describe(`${name}: NFSv3 conformance`, () => {
    let opened: Awaited<ReturnType<typeof openSuite>> | null = null;
    before(async () => {
      opened = await openSuite(await open(), options);
    });
    after(async () => {
      await opened?.close();
    });
    const suite = (): NonNullable<typeof opened> => {
      if (opened === null) throw new Error('the server did not start');
      return opened;
    };
    transportChecks(suite);
    namespaceChecks(suite);
    renameChecks(suite);
    dataChecks(suite);
    directoryChecks(suite);
    lockChecks(suite);
    if (options.durable) durabilityChecks(suite);
  });
}
