/** What a person needs after `npm start`: how to mount the datastore from Linux, QEMU and ESXi, as this router really listens. */
import { networkInterfaces } from 'node:os';

import type { RouterAddresses } from '../router-port.ts';
import { isLoopback } from '../settings/kinds.ts';

export interface BannerFacts {
  readonly version: string;
  readonly vpool: string;
  readonly data: string;
  readonly backend: string;
  readonly addresses: RouterAddresses;
  /** `http://127.0.0.1:8080` */
  readonly adminUrl: string;
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
    ['status', `vferry status, ${facts.adminUrl}/status, /readyz, /metrics`],
    ['stop', 'Ctrl-C'],
  ];
  return `\nvferry ${facts.version}: datastore /${vpool} is ready\n\n${rows.map(([name, text]) => `  ${name.padEnd(8)}${text}\n`).join('')}\n`;
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
