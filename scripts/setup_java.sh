#!/usr/bin/env bash
# Downloads what runs the Jenkinsfile in its test (deploy/jenkins/test/pom.xml) into .java-tools with
# Maven, and compares it with jars.sha256. Needs a JDK and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.java-tools
sums=$PWD/deploy/jenkins/test/jars.sha256

command -v mvn >/dev/null || {
    printf 'set-up: there is no Maven here, which downloads what runs the Jenkinsfile\n' >&2
    exit 1
}
if (cd "$tools" 2>/dev/null && sha256sum --check --status "$sums"); then exit 0; fi
printf 'set-up: deploy/jenkins/test/pom.xml into %s\n' "$tools" >&2
mvn -q -B --strict-checksums -f deploy/jenkins/test/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$PWD/$tools" >&2
cd "$tools"
sha256sum --check --quiet "$sums"
