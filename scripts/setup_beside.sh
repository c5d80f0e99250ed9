#!/usr/bin/env bash
# Creates .venv-NAME from requirements/NAME.txt unless it is up to date: for a tool that cannot, or
# need not, share an environment with TFX (airflow, kubeflow, bench). Needs .venv; see
# scripts/setup.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=requirements/$1.txt
venv=.venv-$1
ready=$venv/.ready

exec 9<"$pins"
if command -v flock >/dev/null; then flock 9; fi

key="$PWD $(.venv/bin/python -V) $(cksum <"$pins")"
[ "$(cat "$ready" 2>/dev/null)" != "$key" ] || exit 0

index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}}
index=${index:-${PIP_INDEX_URL:-}}
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}

printf 'set-up: %s into %s\n' "$pins" "$venv" >&2
rm -rf "$venv"
.venv/bin/python -c 'import subprocess, sys
# The Python that .venv was created with, not that of .venv itself.
subprocess.run([sys._base_executable, "-m", "venv", sys.argv[1]], check=True)' "$venv"
if [ -x .venv/bin/uv ]; then
    .venv/bin/uv pip sync -q --require-hashes --compile-bytecode -p "$venv" "$pins"
else
    "$venv/bin/python" -m pip install -q --require-hashes -r "$pins"
fi
printf '%s\n' "$key" >"$ready"
