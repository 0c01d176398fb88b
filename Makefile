# Every command that people and CI use. Each does its own set-up: a machine with git, make and Python 3.11 to 3.14 is enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test fmt lint types house docs bench bench-peers bench-monitor faults faults-long check lock messages

help:  ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20

setup: $(READY)  ## Make .venv with everything pinned (once)

$(READY): requirements/all.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "modelyard needs Python 3.11 to 3.14 on the PATH; set PYTHON=/path/to/python"; exit 1; }
	@echo "setup: making .venv with $$($(PYTHON) --version) and the pinned packages, once"
	@rm -rf .venv
	@date +%s > .setup-started
	@$(PYTHON) -m venv .venv || { echo "setup: $(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/pip install --quiet --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python .venv --require-hashes -r requirements/all.txt || $(BIN)/pip install --quiet --require-hashes -r requirements/all.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)
	@echo "setup: done in $$(( $$(date +%s) - $$(cat .setup-started) )) s"
	@rm -f .setup-started

demo: $(READY)  ## Train, package, deploy and watch a real model; KEEP=1 leaves it running
	@$(BIN)/modelyard demo $(if $(KEEP),--keep)

test: $(READY)  ## All tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

fmt: $(READY)  ## Format the code
	@$(BIN)/ruff format src tests benchmarks
	@$(BIN)/ruff check --fix src tests benchmarks

lint: $(READY)  ## Ruff and the import contracts
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/lint-imports

types: $(READY)  ## mypy, strict
	@$(BIN)/mypy

house: $(READY)  ## Our largest files, functions, parameter lists and fan-ins
	@$(BIN)/python tests/house/sizes.py

docs: $(READY)  ## Check that docs cover every command and setting and that each example runs
	@$(BIN)/python -m pytest -q tests/house/test_docs.py tests/house/test_readme.py

bench: $(READY)  ## Benchmarks, as ratios within one run; rewrites the table in docs/benchmarks.md
	@$(BIN)/python -m benchmarks

bench-peers: $(READY)  ## Other model servers on the same forest; rewrites docs/peers.md and its chart
	@$(BIN)/python -m benchmarks.peers

bench-monitor: $(READY)  ## The bars of monitoring; rewrites the table in docs/monitoring-benchmarks.md
	@$(BIN)/python -m benchmarks.monitor

faults: $(READY)  ## Faults and abuse against a running server; rewrites the tables in README.md and docs/faults.md; FAULTS="1 24" runs some
	@PYTHONPATH=tests/support $(BIN)/python -m tests.faults $(FAULTS_FLAGS) $(FAULTS)

faults-long: $(READY)  ## Their long forms: FAULTS_LEAK_S seconds (7200), FAULTS_FUZZ cases (1000000)
	@PYTHONPATH=tests/support $(BIN)/python -m tests.faults --long $(FAULTS)

check: lint types house  ## What CI runs, the faults judged; the tests' closing line comes last
	@failed=0; PYTHONPATH=tests/support $(BIN)/python -m tests.faults --no-write || failed=1; $(MAKE) --no-print-directory test; exit $$failed

messages: $(READY)  ## Compile the .proto files into the descriptor set
	@$(BIN)/python tests/house/test_messages.py

lock:  ## Pin the newest versions that fit (needs uv)
	uv pip compile -q --upgrade --universal --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --all-extras pyproject.toml --group test --group lint -o requirements/all.txt
	uv pip compile -q --upgrade --universal --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 requirements/clients.in -o requirements/clients.txt
	uv pip compile -q --upgrade --universal --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 requirements/mlflow.in -o requirements/mlflow.txt
	uv pip compile -q --upgrade --universal --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 requirements/openapi.in -o requirements/openapi.txt
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 -c requirements/all.txt requirements/gcs.in -o requirements/gcs.txt
	uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --override requirements/tensorflow.overrides requirements/tensorflow.in -o requirements/tensorflow.txt
	grep -oE '^uv==[0-9.]+' requirements/all.txt | uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 - -o requirements/uv.txt
