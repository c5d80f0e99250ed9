#!/usr/bin/env bash
# Renews requirements/: the newest versions that fit setup.py and pyproject.toml, with hashes.
#
#   compat.txt      what the package needs on Python 3.10, Linux
#   modern.txt      the same for Python 3.11 to 3.13, Linux and macOS
#   *-dev.txt       development tools (pyproject.toml's group), compatible with the file above
#   uv.txt          the installer itself
#   airflow.txt, kubeflow.txt, kubernetes.txt, bench*.txt   for separate environments; see
#                   scripts/setup_beside.sh
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
compile --python-version 3.10 --universal - -o requirements/uv.txt <<<uv
compile --python-version 3.10 --universal - -o requirements/airflow.txt <<<apache-airflow
compile --python-version 3.10 --universal - -o requirements/kubeflow.txt <<<'kfp[kubernetes]'
compile --python-version 3.10 --universal - -o requirements/kubernetes.txt <<<$'kubernetes-validate\npyyaml'
compile --python-version 3.10 --universal - -o requirements/bench.txt \
    <<<$'catboost\nlightgbm\nmatplotlib\npyyaml\nrdatasets\nscikit-learn\nxgboost-cpu'
compile --python-version 3.10 --python-platform linux - -o requirements/bench-mlserver.txt \
    <<<$'mlflow\nmlserver<1.7\nsetuptools<81\ntensorflow-cpu==2.16.2'
compile --python-version 3.10 --python-platform linux - -o requirements/bench-bentoml.txt \
    <<<$'bentoml\nsetuptools<81\ntensorflow-cpu==2.16.2'
