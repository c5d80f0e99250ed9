# Every target sets up .venv by itself: `make run` on a fresh clone is enough.
.DEFAULT_GOAL := help
.PHONY: help setup browser run serve test test-slow unit test-modern mutants airflow kubeflow flink notebooks \
	image image-lint sbom demo bench bench-models bench-serving manifests manifests-apply alerts \
	train promote deploy undeploy smoke jenkins-lint jenkins-test lint format docs lock clean
bin := .venv/bin
ROOT := fraud-root
VERSION = $(shell sed -n 's/^ *version="\(.*\)",$$/\1/p' setup.py)
# Of the delivery: what a training run reads and where it writes, where it goes to, and the server to try.
TRAIN_CONFIG ?= data/sample/config.yaml
TRAIN_DATA ?= data/sample/transactions
# Without TRAIN_ROOT, each training has an empty root.
TRAIN_ROOT ?=
OVERLAY ?= production
REGISTRY ?= registry.example/fraud
TAG ?= $(shell git rev-parse HEAD)
SMOKE_URL ?= http://127.0.0.1:8501

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo '  ARGS=… is added to the command of run, test and unit; PYTHON=… names the interpreter'

setup: ## create .venv, or update it when the pins have changed
	@scripts/setup.sh

browser: # for the tests of pages
	@scripts/setup_browser.sh

run: setup ## the whole pipeline on the sample in data/, up to a pushed model
	$(bin)/fraud-pipeline run --config data/sample/config.yaml --data data/sample/transactions $(ARGS)

serve: setup ## answer requests at port 8501, with the model and the history of the sample
	test -n "$$(ls fraud-root/pushed 2>/dev/null)" || $(MAKE) run
	$(bin)/fraud-pipeline serve --config data/sample/config.yaml --data data/sample/transactions $(ARGS)

test: lint browser ## lint, then all tests except the slow ones (ARGS="-k windows" for some)
	$(bin)/python -m pytest -m "not slow" $(ARGS)

test-slow: setup ## more complete runs: orchestrators, tuning, the backtest
	$(bin)/python -m pytest -m slow $(ARGS)

unit: setup browser ## the tests that take seconds
	$(bin)/python -m pytest -m "not e2e" $(ARGS)

test-modern: ## `make test` on TFX 1.21, in a Debian 13 root if this machine is older
	scripts/modern.sh make test $(if $(ARGS),ARGS='$(ARGS)')

mutants: setup ## change the modules that decide, one thing at a time: do the tests notice? (30 minutes)
	$(bin)/python scripts/mutants.py $(ARGS)

airflow: setup ## run two days of the sample with a real Airflow, in its own environment
	scripts/setup_beside.sh airflow
	$(bin)/fraud-pipeline compile --config data/sample/config.yaml --data data/sample/transactions \
		--root build/airflow/root --out build/airflow/graph
	FRAUD_MIN_ROWS=1000 .venv-airflow/bin/python deploy/airflow/local.py --airflow .venv-airflow/bin/airflow \
		--pipeline $(bin)/fraud-pipeline --home build/airflow/home --graph build/airflow/graph \
		--first 2026-03-20 --last 2026-03-21
	$(bin)/fraud-pipeline status --root build/airflow/root

kubeflow: setup ## run the sample with Kubeflow's local runner; write the YAML for a cluster
	scripts/setup_beside.sh kubeflow
	$(bin)/fraud-pipeline compile --config data/sample/config.yaml --data data/sample/transactions \
		--root build/kubeflow/root --out build/kubeflow/graph
	.venv-kubeflow/bin/python deploy/kubeflow/fraud.py compile --graph build/kubeflow/graph \
		--image fraud-pipeline --claim fraud:/fraud --at /fraud/graph --out build/kubeflow/fraud.yaml
	.venv-kubeflow/bin/python deploy/kubeflow/fraud.py run --graph build/kubeflow/graph \
		--pipeline $(abspath $(bin))/fraud-pipeline
	$(bin)/fraud-pipeline status --root build/kubeflow/root

flink: setup ## run the sample on a real Flink cluster of two workers, and compare with a local run (needs a JDK, Maven)
	scripts/setup_flink.sh
	rm -rf build/flink
	$(bin)/fraud-pipeline run --config data/sample/config.yaml --data data/sample/transactions --root build/flink/local
	$(bin)/python deploy/flink/cluster.py --home build/flink/cluster -- $(bin)/fraud-pipeline run \
		--config data/sample/config.yaml --config build/flink/cluster/beam.yaml \
		--data data/sample/transactions --root build/flink/root
	$(bin)/python deploy/flink/compare.py build/flink/local build/flink/root

image: image-lint ## build the images and try them: a run to a pushed model, a scored transaction (needs buildah)
	scripts/image.sh
	$(bin)/python -m pytest -m slow tests/e2e/test_images.py $(ARGS)

image-lint: setup # the Dockerfile, compose.yaml, and GitHub's workflow
	scripts/setup_beside.sh image
	.venv-image/bin/hadolint deploy/docker/Dockerfile
	.venv-image/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/docker/compose.yaml
	.venv-image/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml

sbom: setup ## list the Python packages of both images with their hashes, as CycloneDX, in build/sbom
	scripts/setup_beside.sh image
	mkdir -p build/sbom
	.venv-image/bin/cyclonedx-py requirements requirements/modern.txt --output-reproducible \
		--validate -o build/sbom/fraud-pipeline.json
	.venv-image/bin/cyclonedx-py requirements requirements/serving.txt --output-reproducible \
		--validate -o build/sbom/fraud-serving.json

notebooks: setup ## run the notebooks on ROOT=fraud-root, which two runs of the sample create first
	@test -d $(ROOT)/pushed || for day in 2026-03-14 2026-03-21; do \
		$(bin)/fraud-pipeline run --config data/sample/config.yaml --data data/sample/transactions \
			--root $(ROOT) --as-of $$day || exit 1; done
	$(bin)/python scripts/run_notebooks.py --root $(ROOT)

demo: setup ## four ways to look after a model over 120 simulated days (DATA=transactions FIRST=2018-06-01: over yours)
	$(bin)/python -m benchmarks.demo $(if $(DATA),--data $(DATA) --first $(FIRST) --policies never weekly loop) $(ARGS)

bench: setup ## compare the cost of a run with stock TFX and a floor (ARGS="--rows 1200000" for more)
	scripts/setup_beside.sh bench
	mkdir -p build/speed
	$(bin)/python -m benchmarks.speed $(ARGS)
	.venv-bench/bin/python -m benchmarks.speed.plot build/speed/speed.json build/speed/speed.svg

bench-serving: setup ## compare the server with a bare call, MLServer, MLflow and BentoML (after make run)
	scripts/setup_beside.sh bench-mlserver
	scripts/setup_beside.sh bench-bentoml
	scripts/setup_beside.sh bench
	$(bin)/python -m benchmarks.serving --contestants ours mlserver mlflow bentoml $(ARGS)
	$(bin)/python -m benchmarks.serving.raw $(ARGS)
	.venv-bench/bin/python -m benchmarks.serving.plot build/serving/serving.json build/serving/serving.svg

bench-models: setup ## compare the network with boosting and others on public tables (DATA=transactions FIRST=2018-07-04: on yours)
	scripts/setup_beside.sh bench
	$(bin)/python -m benchmarks.models.$(if $(DATA),compare $(DATA) --first-test-day $(FIRST),tables) $(ARGS)
	$(if $(DATA),,.venv-bench/bin/python -m benchmarks.models.tables_plot build/tables/tables.json build/tables/tables.svg)

manifests: setup ## build the Kubernetes manifests and check them: schemas, policies (needs Go)
	scripts/setup_beside.sh kubernetes
	scripts/setup_go.sh linters
	.venv-kubernetes/bin/python deploy/kubernetes/check.py --tools .go-tools/linters --out build/manifests

manifests-apply: manifests ## apply them to a real API server, which is built first (needs Go; once, for 11 minutes of a processor)
	scripts/setup_go.sh cluster
	.venv-kubernetes/bin/python deploy/kubernetes/api_server.py --tools .go-tools/cluster \
		--kustomize .go-tools/linters/kustomize --out build/manifests

alerts: ## check and test the alerts (needs Prometheus's promtool)
	promtool check rules deploy/observability/alerts.yaml
	promtool test rules deploy/observability/alerts_test.yaml deploy/observability/alerts_days_test.yaml

train: setup ## a run for the delivery; its outcome and report are in build/train (TRAIN_DATA=, TRAIN_CONFIG=, TRAIN_ROOT=)
	scripts/train.sh $(TRAIN_CONFIG) $(TRAIN_DATA) $(TRAIN_ROOT)

promote: ## push the images that `make image` built to REGISTRY, as TAG
	for name in serving pipeline; do buildah push localhost/fraud-$$name:$(VERSION) docker://$(REGISTRY)/$$name:$(TAG) || exit 1; done

deploy: ## bring OVERLAY with the images of TAG to a cluster, and wait for it (needs kubectl)
	scripts/deploy.sh apply $(OVERLAY) $(REGISTRY) $(TAG)

undeploy: ## the deployments in the cluster are what they were before
	scripts/deploy.sh undo

smoke: ## whether the server at SMOKE_URL is ready and scores
	python3 scripts/smoke.py $(SMOKE_URL)

jenkins-lint: # the Jenkinsfile and the seed job (needs Node.js and Java)
	test -x deploy/jenkins/lint/node_modules/.bin/npm-groovy-lint || npm --prefix deploy/jenkins/lint ci --no-audit --no-fund --ignore-scripts
	cd deploy/jenkins && lint/node_modules/.bin/npm-groovy-lint --failon info --noserver Jenkinsfile jobs.groovy

jenkins-test: setup ## run the Jenkinsfile without Jenkins (needs a JDK, Maven and Node.js)
	$(bin)/python -m pytest -m slow tests/deploy/test_jenkins.py $(ARGS)

lint: setup ## ruff and mypy
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format: setup ## ruff's formatting and safe fixes
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

docs: setup ## generate docs/configuration.md, docs/config.schema.json and deploy/observability's dashboards
	$(bin)/python scripts/document_configuration.py
	$(bin)/python deploy/observability/generate.py

lock: setup ## renew the pins of both stacks from setup.py and pyproject.toml
	scripts/lock.sh

clean: ## remove .venv, .venv-* and the tools' caches; results (fraud-root) stay
	rm -rf .venv .venv-* .go-tools .java-tools .flink deploy/jenkins/lint/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
