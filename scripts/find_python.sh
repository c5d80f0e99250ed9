#!/usr/bin/env bash
# Prints the Python to use on this machine, or explains what to install (exit 2).
#
#   Linux x86-64, C library (glibc) before 2.39   3.10              compat stack, TFX 1.16
#   Linux x86-64, glibc 2.39 or newer             3.13, 3.12, 3.11  modern stack, TFX 1.21
#                                                 3.10              compat stack, as a fallback
#   macOS on Apple silicon                        3.13, 3.12, 3.11  modern stack, TFX 1.21
#
# These are the platforms for which the two stacks have wheels. 3.13 comes first because the modern
# stack is tested on it. PYTHON=/path/to/python3 replaces the search, not the rule.
set -euo pipefail

die() {
    printf 'set-up: %s\n' "$*" >&2
    exit 2
}

platform="$(uname -s) $(uname -m)"
case "$platform" in
"Linux x86_64")
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p' || true)
    [ -n "$libc" ] || die "TFX needs glibc, which this Linux does not have. Use Debian, Ubuntu or Fedora."
    platform="$platform, glibc $libc"
    if [ "$(printf '%s\n' 2.39 "$libc" | sort -V | head -n 1)" = 2.39 ]; then
        versions=(3.13 3.12 3.11 3.10)
    else
        versions=(3.10)
    fi
    ;;
"Darwin arm64") versions=(3.13 3.12 3.11) ;;
*) die "TFX has no wheels for $platform. Use Linux on x86-64, or macOS on Apple silicon." ;;
esac

version_of() { # by running it: a pyenv shim on PATH may refuse to start
    "$1" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

is_virtual() { # an active virtual environment may be .venv itself, which set-up replaces
    [ -e "$(dirname "$1")/../pyvenv.cfg" ]
}

# A job may run with another HOME or none, so look in the user database too.
home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true)

candidates() { # of version $1: on PATH, in the usual folders, of pyenv and uv, under /opt
    type -aP "python$1" || true
    local path
    for path in {/usr,/usr/local,/opt/homebrew}/bin/"python$1" \
        {"${PYENV_ROOT:-}","${HOME:-}/.pyenv","$home/.pyenv",/usr/local/pyenv,/opt/pyenv}/versions/"$1"*/bin/"python$1" \
        {"${HOME:-}","$home"}/.local/share/uv/python/*-"$1"*/bin/"python$1" \
        {/opt,/opt/python,/usr/local}/*"$1"*/bin/"python$1"; do
        [ ! -x "$path" ] || printf '%s\n' "$path"
    done
}

if [ -n "${PYTHON:-}" ]; then
    found=$(version_of "$PYTHON") ||
        die "PYTHON=$PYTHON does not start, or lacks venv or ensurepip (Debian: python3-venv)."
    [[ " ${versions[*]} " = *" $found "* ]] ||
        die "PYTHON=$PYTHON is Python $found. This machine ($platform) needs one of: ${versions[*]}"
    path=$(command -v "$PYTHON")
    ! is_virtual "$path" ||
        die "PYTHON=$PYTHON is in a virtual environment. Name the Python that made it."
    printf '%s\n' "$path"
    exit
fi

for version in "${versions[@]}"; do
    while read -r path; do
        if ! is_virtual "$path" && [ "$(version_of "$path")" = "$version" ]; then
            printf '%s\n' "$path"
            exit
        fi
    done < <(candidates "$version")
done

want=${versions[0]}
die "no Python here that starts, has venv, and is one of: ${versions[*]}
  This machine ($platform) needs one of them. Any of these installs it:
    pyenv install $want     (found in ~/.pyenv; it need not be activated)
    uv python install $want
    apt-get install python$want python$want-venv python$want-dev     (where the release has it)
  To use one that is elsewhere: make PYTHON=/path/to/python$want …"
