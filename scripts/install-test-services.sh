#!/bin/sh
# Real clients, real object storage and the peer of the benchmarks, from Debian's packages: installs what is missing, nothing else, and starts no daemon.
set -eu

packages='qemu-system-x86 qemu-utils qemu-block-extra seabios busybox-static cpio kmod libnfs-utils gcc libc6-dev nfs-ganesha nfs-ganesha-vfs rpcbind iproute2 swift-proxy swift-account swift-container swift-object python3-swift memcached curl openssl'
packages="$packages ceph-mon ceph-osd radosgw ceph-common redis-server redis-sentinel redis-tools"

missing=''
for package in $packages; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

fail() {
  echo "The end-to-end tests need the Debian packages:$missing" >&2
  echo "$1" >&2
  exit 1
}

command -v apt-get >/dev/null || fail 'There is no apt-get on this machine; run the tests on Debian 12 or newer, or install them some other way.'
[ "$(id -u)" = 0 ] || fail "Installing them needs root: sudo apt-get install --no-install-recommends$missing"

# A package's postinst must not start rpcbind or ganesha here (Debian policy-rc.d: 101 = not allowed).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi

echo "Installing for the tests:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 -- a list of words
install() { apt-get -q -o DPkg::Lock::Timeout=400 install -y --no-install-recommends $missing >&2; }
install || { apt-get -q -o DPkg::Lock::Timeout=400 update >&2 && install; } || fail 'apt-get could not install them; its messages are above.'
