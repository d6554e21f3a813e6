# Two environments: .venv runs workers and the demo (no torch: seconds), .venv-dev trains and tests.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LOCKS := deploy/locks
WORKER := .venv/.installed
DEV := .venv-dev/.installed
BIN := .venv-dev/bin
BROKER ?= tansu
IMAGES ?=
PYTEST_ARGS ?=
# Two at a time, a file in one process: each process starts a broker and a cache of its own. What takes
# longest is named first, and stays first, so that neither process waits for the other at the end.
TEST_PROCESSES ?= 2
SIDE_BY_SIDE = --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# These use PyTorch: they load both cores, and what waits for a broker must not wait for them.
TRAINER_TESTS := $(addprefix tests/integration/test_,average.py compare.py crops.py finish.py own_data.py reference_weights.py retrain.py retrain_job.py start_from_bundle.py study.py train_processes.py train_to_bundle.py)
# The rest, short files last; pytest sorts what overlaps, so no folder is named beside a file in it.
BROKER_TESTS := tests/chaos tests/integration/worker tests/acceptance $(filter-out $(TRAINER_TESTS),$(wildcard tests/integration/test_*.py))
export PYTHON
# Without the banner of Material for MkDocs, which speaks of MkDocs 2.
DOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: help demo docs test test-unit test-kafka test-gpu check format lock dev clean distclean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(WORKER) ## Broker, cache, two workers and a few hundred images (IMAGES=dir, BROKER=kafka)
	@.venv/bin/python -m deploy.embedded.demo --broker $(BROKER) $(if $(IMAGES),--images "$(IMAGES)")

test: $(DEV) ## Unit, integration, chaos and acceptance tests, on the embedded broker and cache
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TRAINER_TESTS) tests/unit $(SIDE_BY_SIDE) $(PYTEST_ARGS)
	$(BIN)/pytest $(BROKER_TESTS) $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-unit: $(DEV) ## Unit tests alone
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-kafka: $(DEV) ## The tests that need a broker, on Apache Kafka (Java 17, Maven)
	deploy/kafka/start.sh --prepare
	$(BIN)/pytest tests/chaos tests/acceptance tests/integration --broker kafka $(SIDE_BY_SIDE) $(PYTEST_ARGS)

test-gpu: $(DEV) ## The tests that need an NVIDIA GPU; fails where there is none
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "test-gpu: PyTorch finds no NVIDIA GPU; run it on a machine that has one, with its driver")'
	$(BIN)/pytest tests/gpu $(PYTEST_ARGS)

check: $(DEV) ## Lint, formatting, types, imports, dead code, and the links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(DOCS)

docs: $(DEV) ## Build the documentation into build/docs; a broken link or anchor fails
	$(BIN)/python -m docs.reference_pages
	$(DOCS)

format: $(DEV) ## Rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dev: $(DEV) ## Make or update .venv-dev (training, tests)

# Versions stay as they are unless pyproject.toml asks for others; `rm deploy/locks/*.txt` frees them.
# No addresses: the locks hold versions and hashes, and every index that serves those files will do.
UV ?= $(BIN)/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock"
# All extras but tensorrt, whose package is of no use from a package registry alone.
DEV_EXTRAS := $(foreach extra,worker embedded s3 openvino tensorrt-rtx trainer fakes dev,--extra $(extra))
lock: ## Resolve pyproject.toml into deploy/locks/*.txt again
	@command -v $(UV) >/dev/null || { echo "make lock needs uv in .venv-dev: run make dev first" >&2; exit 1; }
	$(LOCK) --output-file $(LOCKS)/bootstrap.txt $(LOCKS)/bootstrap.in
	$(LOCK) --extra worker --extra embedded --output-file $(LOCKS)/worker.txt pyproject.toml
	$(LOCK) $(DEV_EXTRAS) --constraint $(LOCKS)/worker.txt --output-file $(LOCKS)/dev.txt pyproject.toml

clean: ## Remove what the build, the tests and the demo wrote
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## The same, and the virtual environments
	rm -rf .venv .venv-dev

$(WORKER): deploy/venv.sh $(LOCKS)/bootstrap.txt $(LOCKS)/worker.txt pyproject.toml
	@deploy/venv.sh .venv $(LOCKS)/worker.txt
	@touch $@

$(DEV): deploy/venv.sh $(LOCKS)/bootstrap.txt $(LOCKS)/dev.txt pyproject.toml
	@deploy/venv.sh .venv-dev $(LOCKS)/dev.txt
	@touch $@
