#!/usr/bin/env bash
# Brings .venv in line with the pins; returns at once if it already is.
#
# It is if .venv/.ready contains the digest of everything the environment depends on. The file is
# removed first and written last, so an interrupted set-up starts over. When pins change, a
# finished environment is updated in place.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
ready=$venv/.ready

die() {
    printf 'set-up: %s\n' "$*" >&2
    exit 2
}

# If `make run` and `make test` run at once, the second waits. The lock ends with its process.
exec 9<scripts/setup.sh
if command -v flock >/dev/null; then flock 9; fi

digest() {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

key=$({
    cat setup.py scripts/setup.sh scripts/find_python.sh requirements/{compat,modern}{,-dev}.txt \
        requirements/uv.txt
    # An editable install records the packages and their folders.
    ls -- */__init__.py
    echo "$PWD ${PYTHON:-} $(uname -sm) $(getconf GNU_LIBC_VERSION 2>/dev/null || true)"
} | digest)

made_key='' made_for=''
if [ -f "$ready" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    { read -r made_key && read -r made_for; } <"$ready" || true
fi
[ "$made_key" != "$key" ] || exit 0

python=$(scripts/find_python.sh)
case "$("$python" -c 'import sys; print(sys.version_info < (3, 11))')" in
True) stack=compat ;;
*) stack=modern ;;
esac
pins=("requirements/$stack.txt" "requirements/$stack-dev.txt")

# pyfarmhash, which TFDV needs, is distributed as C++ source.
compiler=''
for name in ${CXX:-} c++ g++ clang++; do
    if command -v "$name" >/dev/null; then compiler=$name && break; fi
done
[ -n "$compiler" ] || die "no C++ compiler here, and pyfarmhash (of TFDV) is built from source." \
    "Debian and Ubuntu: apt-get install g++. Fedora: dnf install gcc-c++. macOS: xcode-select --install"
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] || die "$python lacks its headers ($include/Python.h)," \
    "and pyfarmhash (of TFDV) is built from source." \
    "Debian and Ubuntu: apt-get install python3-dev. Fedora: dnf install python3-devel."

printf 'set-up: %s, %s stack, into %s (a minute or two the first time)\n' \
    "$python" "$stack" "$venv" >&2
rm -f "$ready"
if [ "$made_for" != "$python $PWD" ]; then # scripts in .venv/bin contain its path
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check -q)

# By default, uv uses neither pip's settings nor the machine's certificates.
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-$("${pip[@]}" config get global.index-url 2>/dev/null || true)}}
index=${index:-${PIP_INDEX_URL:-}}
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}
# A busy machine takes longer than uv's minute.
export UV_COMPILE_BYTECODE_TIMEOUT=${UV_COMPILE_BYTECODE_TIMEOUT:-900}

# Compiled here, because importing TFX uncompiled takes three times as long, and some machines
# do not let Python keep what it compiles on import (PYTHONDONTWRITEBYTECODE).
with_uv() {
    "${pip[@]}" install --require-hashes -r requirements/uv.txt &&
        "$venv/bin/uv" pip sync -q --require-hashes --compile-bytecode -p "$venv" "${pins[@]}" &&
        "$venv/bin/uv" pip install -q --no-deps --no-build-isolation -p "$venv" -e .
}
with_pip() {
    printf 'set-up: uv failed; trying pip, which takes several minutes\n' >&2
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # The pins are complete. Of a dependency with an extra, pip asks for a pin of its own.
    "${pip[@]}" install --no-deps --require-hashes -r "${pins[0]}" -r "${pins[1]}" &&
        "${pip[@]}" install --no-deps --no-build-isolation -e .
}
with_uv || with_pip || die "the packages could not be installed (see above)." \
    "If this machine reaches packages through a mirror, pip's own settings must name it."
printf '%s\n' "$key" "$python $PWD" >"$ready"
