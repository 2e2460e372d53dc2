#!/usr/bin/env bash
# Installs what the lab needs: Debian packages by name, Python packages in target/lab/venv, Node packages in target/lab by the
# lock file. What cannot be installed is said; lab/run reports the actors that need it as SKIPPED.
#
#     lab/setup.sh [--short]     --short: only what `lab/run --short` needs
set -euo pipefail
cd "$(dirname "$0")/.."
target=target/lab
mkdir -p "$target"

base=(nginx libnginx-mod-stream openssl curl iproute2 util-linux chromium xvfb nodejs npm python3-venv fonts-dejavu-core)
tools=(firefox-esr webkit2gtk-driver locales chromium-driver gobuster dirb wfuzz dirsearch python3-chardet sqlmap httrack wget wget2 linkchecker lynx whatweb apache2-utils hey
    siege ffuf w3m links elinks wapiti hydra libwww-perl aria2 newsboat monitoring-plugins-basic nmap)
[ "${1:-}" = --short ] && tools=()
# A node that came another way is as good.
command -v node >/dev/null && command -v npm >/dev/null && base=("${base[@]/nodejs/}") && base=("${base[@]/#npm/}")
wanted=()
for package in "${base[@]}" "${tools[@]}"; do [ -n "$package" ] && wanted+=("$package"); done
tools/setup.sh "${wanted[@]}" || echo "not all of ${wanted[*]} could be installed; going on without" >&2

requirements=lab/requirements.txt
if ! cmp -s "$requirements" "$target/requirements.txt"; then
    if [ "${1:-}" = --short ]; then
        # The exact version that the full set has.
        "$target/venv/bin/python" -c 'import requests' 2>/dev/null || python3 -m venv "$target/venv" && "$target/venv/bin/pip" install --quiet "$(grep '^requests==' "$requirements")" \
            || echo "cannot install requests into $target/venv; going on without" >&2
    elif python3 -m venv "$target/venv" && "$target/venv/bin/pip" install --quiet -r "$requirements"; then
        cp "$requirements" "$target/requirements.txt"
    else
        echo "cannot install the packages of $requirements; going on without" >&2
    fi
fi

if ! cmp -s lab/package-lock.json "$target/package-lock.json" || [ ! -d "$target/node_modules" ]; then
    cp lab/package.json lab/package-lock.json "$target/"
    (cd "$target" && npm ci --silent --no-audit --no-fund --ignore-scripts) || { rm -f "$target/package-lock.json"; echo "cannot install lab/package-lock.json; going on without" >&2; }
fi
