#!/usr/bin/env bash
# Renews requirements/: the newest versions that fit setup.py and pyproject.toml, with hashes.
#
#   compat.txt      what the package needs on Python 3.10, Linux
#   modern.txt      the same for Python 3.11 to 3.13, Linux and macOS
#   *-dev.txt       development tools (pyproject.toml's group), compatible with the file above
#   serving.txt     what the server needs of modern.txt, for its image; see docs/images.md
#   uv.txt          the installer itself
#   airflow.txt, kubeflow.txt, flink.txt, kubernetes.txt, image.txt, bench*.txt   for separate
#                   environments; see scripts/setup_beside.sh
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    .venv/bin/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-emit-index-url \
        --no-emit-find-links "$@"
}

lock_stack() { # name, then the options that select Pythons and platforms
    local name=$1
    shift
    compile "$@" setup.py -o "requirements/$name.txt"
    compile "$@" --group dev -c "requirements/$name.txt" -o "requirements/$name-dev.txt"
}

lock_stack compat --python-version 3.10 --python-platform linux
lock_stack modern --python-version 3.11 --universal

# The server reads TensorFlow's library and messages and runs none of its Python, so it needs none of
# its dependencies. The build for CPUs is the same code without that for GPUs.
tensorflow=$(sed -n 's/^tensorflow==\([^ ]*\).*/\1/p' requirements/modern.txt)
config=$(mktemp -d)/uv.toml
trap 'rm -r "$(dirname "$config")"' EXIT
cat >"$config" <<'EOF'
[[dependency-metadata]]
name = "tensorflow-cpu"
requires-dist = []
[[dependency-metadata]]
name = "tensorflow-serving-api"
requires-dist = ["grpcio", "protobuf"]
EOF
compile --config-file "$config" --python-version 3.11 --python-platform linux \
    -c requirements/modern.txt - -o requirements/serving.txt <<EOF
anyio
fastapi
grpcio
lmdb
numpy
orjson
prometheus-client
protobuf
pyarrow
pydantic
pydantic-core
pyyaml
redis[hiredis]
starlette
tensorflow-cpu==$tensorflow
tensorflow-serving-api
typing-extensions
uvicorn[standard]
EOF

compile --python-version 3.10 --universal - -o requirements/uv.txt <<<uv
compile --python-version 3.10 --universal - -o requirements/airflow.txt <<<apache-airflow
compile --python-version 3.10 --universal - -o requirements/kubeflow.txt <<<'kfp[kubernetes]'
# Flink as Beam's runner in deploy/flink/pom.xml needs it.
compile --python-version 3.10 --universal - -o requirements/flink.txt <<<'apache-flink-libraries<1.20'
compile --python-version 3.10 --universal - -o requirements/kubernetes.txt <<<$'kubernetes-validate\npyyaml'
compile --python-version 3.10 --universal - -o requirements/image.txt \
    <<<$'check-jsonschema\ncyclonedx-bom\nhadolint-bin'
compile --python-version 3.10 --universal - -o requirements/bench.txt \
    <<<$'catboost\nlightgbm\nmatplotlib\npyyaml\nrdatasets\nscikit-learn\nxgboost-cpu'
compile --python-version 3.10 --python-platform linux - -o requirements/bench-mlserver.txt \
    <<<$'mlflow\nmlserver<1.7\nsetuptools<81\ntensorflow-cpu==2.16.2'
compile --python-version 3.10 --python-platform linux - -o requirements/bench-bentoml.txt \
    <<<$'bentoml\nsetuptools<81\ntensorflow-cpu==2.16.2'
