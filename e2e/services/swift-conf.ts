/** The configuration files of the Swift that tests use; why each value: see the comments, the rest is stock. */

export interface SwiftPorts {
  readonly proxy: number;
  readonly account: number;
  readonly container: number;
  readonly object: number;
  readonly memcached: number;
}

/** What tests turn while it runs (a part restarts then). */
export interface SwiftTuning {
  /** Seconds that a token lives. */
  readonly tokenLifeSeconds: number;
  /** PUTs, POSTs and DELETEs per second and container before 498; null: no limit. */
  readonly ratelimit: number | null;
  /** Seconds that the proxy waits for an object, container or account server. Stock: 10. */
  readonly nodeTimeoutSeconds: number;
  /** The device counts as full: PUT answers 503 (the object server's 507). */
  readonly full: boolean;
}

export interface SwiftConfInput {
  readonly directory: string;
  readonly ports: SwiftPorts;
  readonly tuning: SwiftTuning;
  readonly user: string;
  readonly key: string;
  readonly tls: boolean;
  /** Operating system user that the daemons run as. */
  readonly systemUser: string;
}

/** Salts of the paths' hashes; `SwiftService.flipByte` finds files with them. */
export const HASH_PREFIX = 'vferry';
export const HASH_SUFFIX = 'tests';

/** Names under `DIRECTORY/etc` and texts. */
export function swiftConfFiles(input: SwiftConfInput): Record<string, string> {
  return {
    'swift.conf': `[swift-hash]
swift_hash_path_prefix = ${HASH_PREFIX}
swift_hash_path_suffix = ${HASH_SUFFIX}
[storage-policy:0]
name = one
default = yes
`,
    'proxy-server.conf': proxyConf(input),
    // Updates of a container's listing get the time that a loaded test machine needs, before they go to the updater's queue.
    'object-server.conf': `${backendConf(input, 'object')}container_update_timeout = 10\n[object-updater]\nconcurrency = 1\n`,
    'container-server.conf': backendConf(input, 'container'),
    'account-server.conf': backendConf(input, 'account'),
  };
}

function proxyConf({ directory, ports, tuning, user, key, tls, systemUser }: SwiftConfInput): string {
  const [account = '', name = ''] = user.split(':');
  const ratelimit = tuning.ratelimit === null ? '' : ' ratelimit';
  return `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${ports.proxy}
workers = 0
user = ${systemUser}
swift_dir = ${directory}/etc
${tls ? `cert_file = ${directory}/etc/proxy.crt\nkey_file = ${directory}/etc/proxy.key\n` : ''}
[pipeline:main]
# s3api before tempauth, slo after it.
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl${ratelimit} s3api tempauth staticweb copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = ${tuning.nodeTimeoutSeconds}
recoverable_node_timeout = ${tuning.nodeTimeoutSeconds}
# Stock 0.5: too short for a loaded test machine, and with one device a miss is a 503.
conn_timeout = 5
# Stock 60: with one device that would be a minute of 503 after 10 errors or one 507.
error_suppression_interval = 1
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:${ports.memcached}
error_suppression_interval = 1
connect_timeout = 30
pool_timeout = 30
io_timeout = 30
[filter:tempauth]
use = egg:swift#tempauth
token_life = ${tuning.tokenLifeSeconds}
user_${account}_${name} = ${key} .admin
user_${account}_reader = reading
[filter:ratelimit]
use = egg:swift#ratelimit
max_sleep_time_seconds = 0.5
rate_buffer_seconds = 0
container_ratelimit_0 = ${tuning.ratelimit ?? 0}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
${['catch_errors', 'gatekeeper', 'healthcheck', 'proxy_logging', 'listing_formats', 'bulk', 'tempurl', 'staticweb', 'copy', 'container_quotas', 'account_quotas', 'slo', 'dlo', 'symlink'].map((filter) => `[filter:${filter.replace(/^(proxy|container|account)_/, '$1-')}]\nuse = egg:swift#${filter}\n`).join('')}`;
}

function backendConf({ directory, ports, tuning, systemUser }: SwiftConfInput, kind: 'object' | 'container' | 'account'): string {
  return `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${ports[kind]}
workers = 0
user = ${systemUser}
swift_dir = ${directory}/etc
devices = ${directory}/srv
mount_check = false
fallocate_reserve = ${kind === 'object' && tuning.full ? '100%' : '0'}
[pipeline:main]
pipeline = healthcheck ${kind}-server
[filter:healthcheck]
use = egg:swift#healthcheck
[app:${kind}-server]
use = egg:swift#${kind}
`;
}
