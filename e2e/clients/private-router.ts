/** A router alone on a private loopback with the well-known ports, for clients that cannot be told others. */
import type { TestContext } from 'node:test';

import { NetworkNamespace } from '../network-namespace.ts';
import { RouterProcess } from '../router-process.ts';
import { stackOf } from '../test-stack.ts';

export interface PrivateRouter {
  readonly router: RouterProcess;
  /** Put in front of every client's command line. */
  readonly prefix: readonly string[];
  /** For libnfs and QEMU, without trailing slash. */
  readonly url: string;
}

export interface PrivateRouterOptions {
  readonly vpool?: string;
  /** More settings, made when its network is there and before it starts. */
  readonly environment?: (network: NetworkNamespace) => Promise<Readonly<Record<string, string>>>;
}

/** Starts one with its own port mapper; everything is gone when the test ends. */
export async function privateRouter(t: TestContext, options: PrivateRouterOptions = {}): Promise<PrivateRouter> {
  const network = stackOf(t).use(await NetworkNamespace.create());
  const more = (await options.environment?.(network)) ?? {};
  const router = await RouterProcess.forTest(t, {
    ports: { nfs: 2049, admin: 8080 },
    portMapper: true,
    environment: { VFERRY_NFS_PORTMAP: 'required', ...more },
    ...(options.vpool === undefined ? {} : { vpool: options.vpool }),
    prefix: network.prefix,
    privateNetwork: true,
  });
  return { router, prefix: network.prefix, url: `nfs://127.0.0.1/${router.vpool}` };
}
