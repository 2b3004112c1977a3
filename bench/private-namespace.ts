/**
 * Runs this program again inside network, mount and process namespaces of its own: port 111 is free there whatever the machine runs,
 * both servers see the same loopback, and whatever is left when it ends is killed by the kernel.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';

const INSIDE = 'BENCH_INSIDE';
/** Ganesha resolves its own address with AI_ADDRCONFIG, which wants an address that is not a loopback one; /run is where rpcbind locks. */
const SETUP = `ip link set lo up && ip addr add 10.99.0.1/32 dev lo && mount -t tmpfs none /run && mkdir -p /run/rpcbind && exec "$@"`;

export function isInside(): boolean {
  return process.env[INSIDE] === '1';
}

/** Null when it can be done here, else why not. */
export function namespaceObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'not root';
  for (const tool of ['unshare', 'ip', 'rpcbind', 'ganesha.nfsd']) {
    if (spawnSync('which', [tool]).status !== 0) return `${tool} is not installed (Debian: nfs-ganesha nfs-ganesha-vfs rpcbind iproute2 util-linux)`;
  }
  return null;
}

/** Runs `node ...args` inside; its exit code. SIGINT and SIGTERM are passed on. */
export async function runInside(args: readonly string[]): Promise<number> {
  const unshare = ['--net', '--mount', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc'];
  const child = spawn('unshare', [...unshare, '--', 'sh', '-c', SETUP, 'sh', process.execPath, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  const end = (): void => void child.kill('SIGKILL');
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
