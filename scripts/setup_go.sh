#!/usr/bin/env bash
# Builds the tools of deploy/kubernetes/tools/NAME/go.mod into .go-tools/NAME unless they are up to
# date. go.sum has the checksums of their source. Needs Go, of the version that go.mod asks for.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
source=deploy/kubernetes/tools/$name
tools=$PWD/.go-tools/$name
ready=$tools/.ready

command -v go >/dev/null || {
    printf 'set-up: there is no Go here, which %s are built with\n' "$source" >&2
    exit 1
}
mkdir -p "$tools"
exec 9>"$tools/.lock" # not on go.mod, which Go itself locks
if command -v flock >/dev/null; then flock 9; fi

key="$(go env GOVERSION) $(cat "$source/go.mod" "$source/go.sum" | cksum)"
[ "$(cat "$ready" 2>/dev/null)" != "$key" ] || exit 0

printf 'set-up: building %s into %s (minutes the first time)\n' "$source" ".go-tools/$name" >&2
export GOFLAGS="-mod=readonly -trimpath -buildvcs=false -p=1" CGO_ENABLED=0
cd "$source"
for package in $(go list -f '{{.ImportPath}}' tool); do
    program=$(basename "$(printf '%s' "$package" | sed -e 's:/v[0-9]*$::' -e 's:etcd/server$:etcd:')")
    nice -n 10 go build -o "$tools/$program" "$package"
done
printf '%s\n' "$key" >"$ready"
