/** What a person needs after `npm start`: how to mount the datastore from Linux, QEMU and ESXi, as this router really listens. */
import { networkInterfaces } from 'node:os';

import type { ClusterStatus } from '../cluster-port.ts';
import type { RouterAddresses } from '../router-port.ts';
import { isLoopback } from '../settings/kinds.ts';
import { shortId } from './cluster-text.ts';

export interface BannerFacts {
  readonly version: string;
  readonly vpool: string;
  readonly data: string;
  readonly backend: string;
  readonly addresses: RouterAddresses;
  /** `http://127.0.0.1:8080` */
  readonly adminUrl: string;
  /** Null for a router on its own. */
  readonly cluster: ClusterStatus | null;
}

/** Several lines, each with a line end. */
export function banner(facts: BannerFacts): string {
  const { addresses, vpool } = facts;
  const host = reachableAddress(addresses.listen);
  const mapped = addresses.portmap !== 'none';
  const path = `${host.includes(':') ? `[${host}]` : host}:/${vpool}`;
  const ports = mapped && addresses.nfsPort === 2049 ? '' : `,port=${addresses.nfsPort},mountport=${addresses.mountPort},mountproto=tcp`;
  const rows: (readonly [string, string])[] = [
    ['Linux', `mount -t nfs -o vers=3,proto=tcp,nolock,hard${ports} ${path} /mnt`],
    [
      'QEMU',
      mapped
        ? `qemu-img create -f raw nfs://${host}/${vpool}/disk1-flat.vmdk 20G`
        : 'needs the port mapper on port 111: run vferry as root, or start rpcbind',
    ],
    ['ESXi', esxi(addresses, host, vpool)],
    ['data', `${facts.data}, backend ${facts.backend}`],
    ...clusterRows(facts.cluster),
    ['status', `vferry status, ${facts.adminUrl}/status, /readyz, /metrics`],
    ['stop', 'Ctrl-C'],
  ];
  return `\nvferry ${facts.version}: datastore /${vpool} is ready\n\n${rows.map(([name, text]) => `  ${name.padEnd(9)}${text}\n`).join('')}\n`;
}

function clusterRows(cluster: ClusterStatus | null): (readonly [string, string])[] {
  if (cluster === null) return [];
  const self = cluster.routers.find((router) => router.self);
  const others = cluster.routers.filter((router) => !router.self && router.state !== 'dead').length;
  const security = cluster.encrypted ? '' : ', PLAIN TEXT';
  return [
    [
      'cluster',
      `router ${shortId(self?.id ?? '?')} at ${cluster.peerAddress}${security}, ${others === 0 ? 'no other router yet' : `${others} other${others === 1 ? '' : 's'}`}`,
    ],
    ['registry', cluster.registry],
  ];
}

function esxi(addresses: RouterAddresses, host: string, vpool: string): string {
  if (isLoopback(addresses.listen)) return 'listen on an address that ESXi reaches: --listen ADDRESS --clients NETWORK';
  if (addresses.portmap === 'none') return 'needs the port mapper on port 111: run vferry as root, or start rpcbind';
  if (addresses.nfsPort !== 2049) return 'needs NFS on port 2049: --nfs-port 2049';
  return `esxcli storage nfs add --host ${host} --share /${vpool} --volume-name ${vpool}`;
}

/** For a wildcard, an address of this machine that others can use. */
function reachableAddress(listen: string): string {
  if (listen !== '0.0.0.0' && listen !== '::') return listen;
  const addresses = Object.values(networkInterfaces()).flat();
  return addresses.find((entry) => entry !== undefined && !entry.internal && entry.family === 'IPv4')?.address ?? '127.0.0.1';
}
