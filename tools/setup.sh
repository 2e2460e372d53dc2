#!/usr/bin/env bash
# Installs missing Debian packages by name: setup.sh PACKAGE...
#
# As root, or where sudo asks for no password; otherwise it says what is missing and goes on, and the tests that need
# a missing package report themselves as skipped.
set -euo pipefail

missing=()
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "missing Debian packages: ${missing[*]}" >&2
    echo "install them (apt-get install ${missing[*]}) to run the tests that need them; going on without" >&2
    exit 0
fi

echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# A freshly installed nginx or memcached must not start serving by itself.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
