# Boots the root file system $1 below the files in $2, with the program $3 as flowctl, in the network namespace this
# runs in, and keeps it until standard input ends: so nothing is left however the test ends, the folder of the files
# included. Needs a mount namespace of its own. All that runs inside is in one process namespace, whose first process
# dies with this one.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/cgroup /run/upper /run/work /run/root
mount -t cgroup2 cgroup2 /run/cgroup
base=/run/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)

clear() {
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
}

# What is left where even this was killed.
for old in "$base"/flowctl-test-*; do
    [ ! -d "$old" ] || [ -d "/proc/${old##*-}" ] || clear "$old" || :
done

group=$base/flowctl-test-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
setpriv --pdeathsig KILL unshare --mount --pid --cgroup --fork --kill-child --mount-proc sh -euc '
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t overlay overlay -o "lowerdir=$2:$1,upperdir=/run/upper,workdir=/run/work" /run/root
    mount --bind "$3" /run/root/usr/bin/flowctl
    # Where systemd-nspawn makes directories that it does not remove when it is killed.
    mount -t tmpfs tmpfs /tmp
    # A container has a boot id of its own, which a service with a /proc of its own does not see under systemd 252: no
    # machine has two, so this one has none of its own.
    systemd-nspawn --quiet --directory=/run/root --register=no --keep-unit --machine=router \
        --network-namespace-path=/proc/self/ns/net --capability=CAP_NET_ADMIN \
        --link-journal=no --resolv-conf=off --timezone=off --console=pipe \
        /bin/sh -c "umount --all-targets /proc/sys/kernel/random/boot_id; exec /lib/systemd/systemd" &
    wait
' sh "$1" "$2" "$3" </dev/null &
machine=$!
cat >/dev/null
kill -KILL "$machine" || :
wait || :
echo $$ >"$base/cgroup.procs"
tries=0
until clear "$group" || [ "$tries" = 300 ]; do
    tries=$((tries + 1))
    sleep 0.01
done
rm -rf "$(dirname "$2")"
