# make quickstart   the whole pipeline on the shipped model and packaged data
# make test         linters, types, import layers and tests
# make test-all     the same with the longest tests
PYTHON ?= python3
VENV ?= .venv
PYTEST_FLAGS ?= -n 2 --dist loadscope --no-loadscope-reorder

BIN := $(VENV)/bin
# Without compiling what is never imported: Python keeps what it has compiled of the rest.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile
# Stamps: an install is repeated when pyproject.toml has changed, and only then.
MADE := $(VENV)/.made
RUNNABLE := $(VENV)/.installed-quickstart
DEVELOPABLE := $(VENV)/.installed-dev
BROWSABLE := $(VENV)/.installed-browser

.PHONY: help quickstart test test-all lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   run the whole pipeline on the shipped model and packaged data (5 to 7 minutes on two cores)"
	@echo "make test         linters, types, import layers and tests"
	@echo "make test-all     the same with the longest tests, which show more of what others show too"
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

# Tried once: without a browser, tests/browser is skipped with the reason, and nothing else needs one.
$(BROWSABLE): | $(DEVELOPABLE)
	@for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do \
	  command -v $$name >/dev/null && exit; done; \
	echo "Installing a headless Chromium for the tests of the report (about 100 MB, once)"; \
	PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 timeout 300 $(BIN)/playwright install --only-shell chromium \
	  >/dev/null 2>&1 || echo "That did not work: tests/browser will be skipped. To try again: rm $@"
	@touch $@

quickstart: $(RUNNABLE)
	@$(BIN)/theodolite quickstart

lint: $(DEVELOPABLE)
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# The tests' numbers are those of a CPU, whatever else the machine has.
test test-all bench: export JAX_PLATFORMS = cpu
test: CHOSEN = -m "not exhaustive"
test test-all: lint $(BROWSABLE)
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(CHOSEN)

bench: $(DEVELOPABLE)
	@for file in $(sort $(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
