#!/usr/bin/env bash
# Makes target/venv with the Python packages that tests and training use. Where that cannot be done it says so and goes
# on; the tests that need them report themselves as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/venv
packages=('catboost==1.2.10' 'crawler-user-agents==1.67.0' 'pandas<4' 'pyarrow<27')
"$venv/bin/python" -c 'import catboost, crawleruseragents, pandas, pyarrow' 2>/dev/null && exit 0
mkdir -p target
if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "${packages[@]}"; }; then
    echo "cannot install ${packages[*]} into $venv; going on without" >&2
fi
