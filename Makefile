# make run and make test are all a new user needs; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
SOAK_S ?= 1200
TEST_JOBS ?= 2
CASES ?= ../shared/cases

.PHONY: help run stop test cases coverage lint format docs lock lock-image bench bench-gpu bench-peers audit sbom bump test-generated test-oip test-page test-recipes test-wheels test-darts test-decisions test-ray test-remote test-spark test-gpu image-test chaos clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: VERSION pyproject.toml lossclient/pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	@echo "Installing; torch is large, this takes a minute or more."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable . --editable ./lossclient --group dev
	@touch $@

run: $(VENV)/.installed ## start the service, score a real example, leave the service running
	$(BIN)/python examples/run.py --port $(PORT)

stop: ## stop the service that `make run` started
	@$(BIN)/python examples/run.py --stop

lint: $(VENV)/.installed ## format check, lint, types, layers, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

format: $(VENV)/.installed ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed ## build the site into docs/_build, warnings are errors
	$(BIN)/python tests/docs/settings_table.py
	$(BIN)/python tests/docs/losses_tables.py
	$(BIN)/sphinx-build -q -W --keep-going -n -c docs . docs/_build
	@echo "docs/_build/index.html"

test: lint ## lint, then all tests
	$(BIN)/loss-scoring compile # or a client of a test would wait for it, longer than it waits
	$(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist worksteal

cases: $(VENV)/.installed ## run the scripts in CASES, inputs that once failed, against a service
	$(BIN)/python tests/cases.py $(CASES)

coverage: $(VENV)/.installed ## the same tests, half as slow again, and which branches they take
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses $(TEST_JOBS) --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lock: ## pin today's newest releases into constraints.txt
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-lock/bin/pip install --quiet --editable . --editable ./lossclient --group dev --group bench
	.venv-lock/bin/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' > constraints.txt
	rm -rf .venv-lock
	$(MAKE) lock-image

# With hashes of all files of a release, for what the image installs. uv only resolves here.
LOCK := .venv-lock/bin/uv pip compile --quiet --generate-hashes --no-header --no-annotate \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint constraints.txt
TORCH_CPU ?= --torch-backend cpu

lock-image: ## pin for the image what constraints.txt says, with hashes, into deploy/locks
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet uv
	$(LOCK) pyproject.toml --extra otel --output-file deploy/locks/cuda.txt >/dev/null
	$(subst x86_64,aarch64,$(LOCK)) pyproject.toml --extra otel --output-file .venv-lock/cuda.txt >/dev/null
	cmp deploy/locks/cuda.txt .venv-lock/cuda.txt # or arm64 needs a lock of its own
	$(LOCK) pyproject.toml --extra otel --output-file deploy/locks/cpu.txt $(TORCH_CPU) >/dev/null
	$(LOCK) --group image --output-file deploy/locks/build.txt >/dev/null
	rm -rf .venv-lock

bench: $(VENV)/.installed ## measure everything against its limit (about 15 minutes), rewrite bench/results.md
	$(BIN)/pip install --quiet --constraint constraints.txt --group bench
	$(BIN)/python bench/run.py

bench-peers: $(VENV)/.installed ## the same loads against other serving frameworks (about 11 minutes), rewrite bench/peers.md
	$(BIN)/python bench/peers.py

.venv-schemathesis/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-schemathesis
	.venv-schemathesis/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-schemathesis/bin/pip install --quiet --group chaos
	@touch $@

chaos: $(VENV)/.installed .venv-schemathesis/.installed ## break it in every way we know (about 10 minutes and SOAK_S=1200 seconds), rewrite bench/reliability.md
	$(BIN)/python tests/chaos/run.py --soak-s $(SOAK_S)

.venv-generated/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-generated
	.venv-generated/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-generated/bin/pip install --quiet --group generated
	@touch $@

.venv-sbom/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-sbom
	.venv-sbom/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-sbom/bin/pip install --quiet --group sbom
	@touch $@

sbom: .venv-sbom/.installed ## write what the images install into sbom/, as CycloneDX
	mkdir -p sbom
	for variant in cpu cuda; do .venv-sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --output-file sbom/$$variant.cdx.json deploy/locks/$$variant.txt || exit 1; done

.venv-audit/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-audit/bin/pip install --quiet --group audit
	@touch $@

audit: .venv-audit/.installed ## compare what the images and constraints.txt pin with known advisories, where their data can be had
	$(PYTHON) tests/deploy/audit.py .venv-audit/bin/pip-audit

test-generated: $(VENV)/.installed .venv-generated/.installed ## call the service with a client generated from its document
	$(BIN)/python -m pytest tests/api/test_generated.py

.venv-oip/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-oip
	.venv-oip/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-oip/bin/pip install --quiet --group oip
	@touch $@

test-oip: $(VENV)/.installed .venv-oip/.installed ## call the service with the clients of Triton and KServe
	$(BIN)/python -m pytest tests/api/test_inference_clients.py

.venv-recipes/.installed: pyproject.toml lossclient/pyproject.toml
	$(PYTHON) -m venv .venv-recipes
	.venv-recipes/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-recipes/bin/pip install --quiet --editable ./lossclient --group recipes
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-airflow/bin/pip install --quiet --editable ./lossclient --group airflow
	@touch $@

test-recipes: $(VENV)/.installed .venv-recipes/.installed ## run the recipes of docs/pipelines.md with Airflow, Dagster, Prefect, MLflow, DuckDB
	$(BIN)/python -m pytest tests/docs/test_recipes.py

test-page: ## try the pages in headless Chromium (apt: chromium), in an environment of its own
	$(PYTHON) -m venv .venv-page
	.venv-page/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-page/bin/pip install --quiet --constraint constraints.txt --editable . --editable ./lossclient --group dev
	.venv-page/bin/pip install --quiet --group page
	.venv-page/bin/python -m pytest -m page tests/page

.venv-release/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-release/bin/pip install --quiet --group release
	@touch $@

test-wheels: .venv-release/.installed ## build both distributions, install and use them in each of PYTHONS that is here
	.venv-release/bin/python tests/wheels.py $(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(DIST),--keep $(abspath $(DIST)))

bump: ## set the version to TO, in VERSION and in the tags of the images
	sed -i "s/$$(cat VERSION)/$(TO)/" Dockerfile deploy/README.md deploy/overlays/*/kustomization.yaml
	echo "$(TO)" > VERSION

test-darts: ## compare with the real darts, sklearn and neuralforecast, in an environment of its own
	$(PYTHON) -m venv .venv-darts
	.venv-darts/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-darts/bin/pip install --quiet --editable . --editable ./lossclient --group dev
	.venv-darts/bin/pip install --quiet --group darts
	.venv-darts/bin/python -m pytest -m darts tests/core tests/client tests/docs

test-decisions: ## compare leaderboards with the real fev and the gate with the real mlflow, in an environment of their own
	$(PYTHON) -m venv .venv-decisions
	.venv-decisions/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-decisions/bin/pip install --quiet --constraint constraints.txt --editable . --editable ./lossclient --group dev
	.venv-decisions/bin/pip install --quiet --group decisions
	.venv-decisions/bin/python -m pytest -m decisions tests/core

test-ray: ## score on real Ray Data, in an environment of its own
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-ray/bin/pip install --quiet --constraint constraints.txt --editable . --group dev
	.venv-ray/bin/pip install --quiet --group ray
	.venv-ray/bin/python -m pytest -m ray tests/bulk

test-remote: ## read from object storage and a web server on loopback, in an environment of its own
	$(PYTHON) -m venv .venv-remote
	.venv-remote/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-remote/bin/pip install --quiet --constraint constraints.txt --editable . --group dev
	.venv-remote/bin/pip install --quiet --group remote
	.venv-remote/bin/python -m pytest -m remote tests/cli

test-spark: ## score on real Spark, in an environment of its own; needs Java 17
	$(PYTHON) -m venv .venv-spark
	.venv-spark/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-spark/bin/pip install --quiet --constraint constraints.txt --editable . --group dev
	.venv-spark/bin/pip install --quiet --group spark
	.venv-spark/bin/python -m pytest -m spark tests/bulk

test-gpu: $(VENV)/.installed ## run the tests that need a CUDA device, measure staging there
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu tests/core tests/engine tests/processes tests/client
	$(BIN)/python bench/staging.py

bench-gpu: $(VENV)/.installed ## measure on a CUDA device, in at most 8 minutes
	bench/gpu.sh

image-test: $(VENV)/.installed ## build the images and try them, without a Docker daemon; needs root, buildah, podman, runc, debootstrap
	$(BIN)/python tests/image/run.py $(IMAGE_TEST)

clean: ## remove environments and caches
	rm -rf docs/_build sbom $(VENV) .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* .run
