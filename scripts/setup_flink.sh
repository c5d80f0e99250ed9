#!/usr/bin/env bash
# Downloads a Flink cluster: Flink's own jars (requirements/flink.txt) into .venv-flink, and Beam's
# runner and job server for it (deploy/flink/pom.xml) into .flink/beam with Maven, compared with
# jars.sha256. Needs .venv, a JDK and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."
jars=.flink/beam
sums=$PWD/deploy/flink/jars.sha256

for program in java mvn; do
    command -v "$program" >/dev/null || {
        printf 'set-up: there is no %s here, which a Flink cluster needs (a JDK 11 or 17, Maven)\n' "$program" >&2
        exit 1
    }
done
scripts/setup_beside.sh flink
if (cd "$jars" 2>/dev/null && sha256sum --check --status "$sums"); then exit 0; fi
printf 'set-up: deploy/flink/pom.xml into %s\n' "$jars" >&2
rm -rf "$jars"
mvn -q -B --strict-checksums -f deploy/flink/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$PWD/$jars" >&2
cd "$jars"
sha256sum --check --quiet "$sums"
