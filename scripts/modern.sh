#!/usr/bin/env bash
# Runs a command on the modern stack (TFX 1.21): scripts/modern.sh make unit
#
# If this machine supports the modern stack, the command simply runs here. On an older Debian
# it runs in a Debian 13 root that is created once under .venv-modern/ (root rights needed),
# on a copy of the checkout, with this machine's own mirror, certificates and settings of pip and
# uv. All mounts are private to this process, so nothing is left mounted however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where debootstrap and chroot are
release=trixie
packages=ca-certificates,curl,g++,git,make,python3,python3-dev,python3-venv
base=.venv-modern
root=$PWD/$base/root

apt_mirror() { # where this machine's own release comes from
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' \
        "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" 2>/dev/null | sed -n 1p
}

die() {
    printf 'modern stack: %s\n' "$*" >&2
    exit 2
}

[ $# -gt 0 ] || die "which command? For example: scripts/modern.sh make unit"

python=$(scripts/find_python.sh 2>/dev/null || true)
if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    exec "$@"
fi

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || exec scripts/find_python.sh
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    die "this machine's C library is too old for TFX 1.21 (glibc 2.39 or newer is needed)." \
        "A Debian 13 root can be created here, but only as root on a Debian machine."

mkdir -p "$base"
exec 9<"$base"
flock 9 # one at a time; the lock ends with its process

# A mount namespace of our own, where the machine allows one.
private=()
if unshare --mount true 2>/dev/null; then private=(unshare --mount); fi

if [ "$(cat "$base/.ready" 2>/dev/null)" != "$release $packages" ]; then
    if ! command -v debootstrap >/dev/null || [ -z "${DEBIAN_MIRROR:-$(apt_mirror)}" ]; then
        { apt-get -qq update && apt-get -qq install --no-install-recommends debootstrap; } >&2 ||
            die "apt-get could not install debootstrap (see above)."
    fi
    mirror=${DEBIAN_MIRROR:-$(apt_mirror)}
    [ -n "$mirror" ] || die "apt names no Debian mirror here; set DEBIAN_MIRROR=…"
    printf 'modern stack: creating a Debian %s root in %s (a minute or two, once)\n' \
        "$release" "$base" >&2
    rm -rf --one-file-system "$root" "$base/.ready"
    proxy=
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    ${proxy:+env http_proxy="$proxy" https_proxy="$proxy"} "${private[@]}" \
        debootstrap --variant=minbase --include="$packages" "$release" "$root" "$mirror" \
        >"$base/debootstrap.log" 2>&1 ||
        die "debootstrap failed; the end of $base/debootstrap.log:
$(tail -n 5 "$base/debootstrap.log")"
    echo "$release $packages" >"$base/.ready"
fi

# This machine's settings of networks, certificates and package indexes.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf \
    /etc/xdg/pip /etc/uv /etc/xdg/uv; do
    if [ -e "$file" ]; then
        mkdir -p "$root$(dirname "$file")"
        cp -rLT "$file" "$root$file"
    fi
done
for file in .pip .config/pip .config/uv; do
    if [ -e "${HOME:-/nonexistent}/$file" ]; then
        mkdir -p "$(dirname "$root/root/$file")"
        cp -rLT "$HOME/$file" "$root/root/$file"
    fi
done

# The checkout as it stands, committed or not; only its environments are kept from the last time.
mkdir -p "$root/checkout"
find "$root/checkout" -mindepth 1 -maxdepth 1 ! -name '.venv*' -exec rm -rf {} +
git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        if [ -e "$file" ]; then printf '%s\0' "$file"; fi
    done | tar -c --null --files-from=- | tar -x -C "$root/checkout"

# The rest runs inside. Without a namespace there is no /proc, and most things still work.
enter='
for dir in /proc /dev; do mount --rbind "$dir" "$0$dir" 2>/dev/null || true; done
exec chroot "$0" sh -c "cd /checkout && exec \"\$@\"" sh "$@"
'
if [ ${#private[@]} = 0 ]; then enter=${enter#*done}; fi
exec env -u PYTHON -u PYENV_ROOT -u VIRTUAL_ENV -u TMPDIR -u MAKEFLAGS -u MAKELEVEL \
    HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    "${private[@]}" bash -c "$enter" "$root" "$@"
