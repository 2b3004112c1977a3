/** What the Linux guest does on its mount; every step ends with `ok <step>` or the script with a status that is not 0. */

export interface KernelClientTarget {
  readonly nfsPort: number;
  readonly mountPort: number;
  readonly vpool: string;
  /** Empty files in `/twenty-thousand`, their names sorted in /job/names. */
  readonly listedFiles: number;
}

/** A script for busybox sh; expects /job/archive.tar, /job/checksums and /job/names. */
export function kernelClientScript(target: KernelClientTarget): string {
  const options = `vers=3,tcp,nolock,hard,port=${target.nfsPort},mountport=${target.mountPort},mountproto=tcp,proto=tcp`;
  return `set -eu
fail() { echo "FAILED: $*"; exit 1; }
mount_it() { mount -t nfs -o ${options} 10.0.2.2:/${target.vpool} /mnt; }
# busybox sha256sum -c prints a line a file; only what is not OK is worth a line here.
check() { sha256sum -c /job/checksums > /tmp/checked || { grep -v ': OK' /tmp/checked; fail "checksums $1"; }; }

mount_it
grep ' /mnt nfs ' /proc/mounts
df /mnt | tail -1
echo ok mounted

cd /mnt
tar -xf /job/archive.tar
check 'after unpacking'
[ "$(readlink tree/level-1/directory-5/symbolic)" = ../../level-0/target-5 ] || fail symlink
[ "$(stat -c %h "tree/level-1/directory-5/file 2 äé")" = 2 ] || fail 'link count'
[ "$(stat -c %i "tree/level-1/directory-5/hard")" = "$(stat -c %i "tree/level-1/directory-5/file 2 äé")" ] || fail 'hard link has another inode'
echo ok unpacked

# A directory with all in it, forth and back; a file over another one, as .vmx~ over .vmx.
mv tree/level-2 tree/level-moved
[ ! -e tree/level-2 ] || fail 'old name is still there'
mv tree/level-moved tree/level-2
echo old > config.vmx
echo new > 'config.vmx~'
inode=$(stat -c %i 'config.vmx~')
mv 'config.vmx~' config.vmx
[ "$(cat config.vmx)" = new ] || fail 'rename over an existing file'
[ "$(stat -c %i config.vmx)" = "$inode" ] || fail 'rename changed the inode number'
mkdir full && : > full/file
if rmdir full 2> /dev/null; then fail 'rmdir of a directory that is not empty'; fi
rm -r full
check 'after renames'
echo ok renamed

dd if=/dev/zero bs=1k count=100 2> /dev/null | tr '\\000' x > data-flat.vmdk
truncate -s 5000 data-flat.vmdk
[ "$(stat -c %s data-flat.vmdk)" = 5000 ] || fail 'size after shrinking'
truncate -s 20000 data-flat.vmdk
[ "$(tr -d x < data-flat.vmdk | wc -c)" = 15000 ] || fail 'regrown part is not zeros'
[ "$(head -c 5000 data-flat.vmdk | tr -d x | wc -c)" = 0 ] || fail 'kept part'
truncate -s 68169720922112 big-flat.vmdk
[ "$(stat -c %s big-flat.vmdk)" = 68169720922112 ] || fail 'a 62 TB volume'
# Appends, as logs grow: from inline to file.
i=0; while [ $i -lt 300 ]; do echo "line $i of the log" >> vmware.log; i=$((i + 1)); done
[ "$(wc -l < vmware.log)" = 300 ] || fail 'appended lines'
tail -1 vmware.log | grep -q 'line 299 of the log' || fail 'last line'
echo ok truncated

cd /mnt/twenty-thousand
ls -1 | sort > /tmp/names
cmp /tmp/names /job/names || fail 'the listing differs'
# Attributes of every file, from READDIRPLUS: -i and -l need an inode number each, all different.
[ "$(ls -1i | awk '{print $1}' | sort -u | wc -l)" = ${target.listedFiles} ] || fail 'inode numbers are not unique'
cd /mnt
echo ok listed

dd if=/dev/urandom of=/tmp/random bs=64k count=100 2> /dev/null
dd if=/tmp/random of=/mnt/direct-flat.vmdk bs=64k oflag=direct 2> /dev/null
dd if=/tmp/random of=/mnt/buffered-flat.vmdk bs=10000 conv=fsync 2> /dev/null
cd /
umount /mnt
mount_it
cd /mnt
check 'after a remount'
cmp /tmp/random direct-flat.vmdk || fail 'direct writes'
cmp /tmp/random buffered-flat.vmdk || fail 'buffered writes'
echo ok remounted

echo 'please kill the router'
read answer
[ "$answer" = 'killed and started' ] || fail "answer: $answer"
echo 3 > /proc/sys/vm/drop_caches
check 'after a kill -9 of the router under a hard mount'
cmp /tmp/random direct-flat.vmdk || fail 'direct writes after the kill'
cmp /tmp/random buffered-flat.vmdk || fail 'buffered writes after the kill'
[ "$(cat config.vmx)" = new ] || fail 'config.vmx after the kill'
[ "$(wc -l < vmware.log)" = 300 ] || fail 'vmware.log after the kill'
echo ok survived

rm -r tree config.vmx ./*-flat.vmdk vmware.log
[ "$(ls -A /mnt)" = twenty-thousand ] || fail "left over: $(ls -A /mnt)"
cd /
umount /mnt
echo ok removed
`;
}
