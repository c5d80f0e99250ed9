#!/usr/bin/env bash
# Builds the images fraud-pipeline and fraud-serving with buildah, which needs no daemon:
#
#   scripts/image.sh              both, on Debian's slim image
#   BASE=python:3.12-slim …       on another image with apt
#
# If that image is neither here nor to be had, because no registry is reachable, a base of the same
# Debian packages is made by debootstrap, once (as root on Debian). See docs/images.md.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where debootstrap is
release=trixie
base=${BASE:-debian:$release-slim}
made=localhost/debian:$release

say() { printf 'images: %s\n' "$*" >&2; }
die() { say "$*" && exit 2; }

install() { # the Debian package of a program, if the program is missing
    command -v "$1" >/dev/null && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "no $1 here; install it"
    say "installing $1"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends "$@"; } >/dev/null </dev/null || die "apt-get could not install $1"
}

make_base() {
    install debootstrap
    local mirror folder container
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' \
        "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" 2>/dev/null | sed -n 1p)}
    [ -n "$mirror" ] || die "apt names no Debian mirror here; set DEBIAN_MIRROR=…"
    say "making $made by debootstrap (some minutes, once)"
    folder=$(mktemp -d)
    trap 'rm -rf --one-file-system "$folder"' RETURN
    debootstrap --variant=minbase "$release" "$folder" "$mirror" >"$folder.log" 2>&1 ||
        die "debootstrap failed; see $folder.log"
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder.log"
    container=$(buildah from scratch)
    tar -C "$folder" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -c . |
        tar -C "$(buildah mount "$container")" -x
    buildah umount "$container" >/dev/null
    buildah config --cmd bash "$container"
    buildah commit -q --rm "$container" "$made" >/dev/null
}

install buildah fuse-overlayfs
if [ -z "${BASE:-}" ] && ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    if buildah inspect --type image "$made" >/dev/null 2>&1; then
        base=$made
    elif ! timeout 120 buildah pull -q "$base" >/dev/null 2>&1; then
        say "$base cannot be had"
        make_base
        base=$made
    fi
fi

secrets=()
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
if [ -s "$certificates" ]; then secrets+=(--secret "id=certificates,src=$certificates"); fi
index=$(mktemp)
trap 'rm -f "$index"' EXIT
printf %s "${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-}}}" >"$index"
if [ -s "$index" ]; then secrets+=(--secret "id=index,src=$index"); fi

version=$(sed -n 's/^ *version="\(.*\)",$/\1/p' setup.py)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then revision=$revision-modified; fi
for target in pipeline serving; do
    say "building fraud-$target:$version on $base"
    buildah build --layers --isolation chroot --network host --format docker \
        --file deploy/docker/Dockerfile --target "$target" --tag "localhost/fraud-$target:$version" \
        --build-arg BASE="$base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
        --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${secrets[@]}" . >&2
done
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep "^localhost/fraud-.*:$version "
