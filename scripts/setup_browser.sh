#!/usr/bin/env bash
# Makes sure that there is a Chromium for the tests of pages: on Debian and Ubuntu, as root, its
# package is installed where it is missing. Elsewhere the tests are skipped and say so.
set -euo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    printf 'set-up: no Chromium here; the tests of pages will be skipped\n' >&2
    exit 0
fi
printf 'set-up: installing chromium for the tests of pages (once)\n' >&2
{
    apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium
} >/dev/null 2>&1 ||
    printf 'set-up: apt-get could not install chromium; the tests of pages will be skipped\n' >&2
