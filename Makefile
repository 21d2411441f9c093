# The words that people and .ci/run both use. Nothing is needed before them but Python >= 3.11, git and make.

PYTHON ?= python3
JOBS   ?= 2

# Compiled tests are kept in __pycache__ even where the environment says otherwise: collecting them then takes half the time.
export PYTHONDONTWRITEBYTECODE :=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-costly test-all lint format types docs bench clean

help:  ## show these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the environment in .venv (every other word does this by itself)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Hardy needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV); PyTorch is large, so the first time takes a few minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint,docs,export,bench,bulk,track,report,weights,heads,video,large,corrupt,openvino]'
	@touch $@

demo: $(STAMP)  ## train, prune, evaluate, measure, export and report on drawn streets
	$(BIN)/hardy demo

test: $(STAMP)  ## run the tests of about a second or less, of every large cross product a part (5 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not costly and not exhaustive"

test-fast: $(STAMP)  ## run the tests of a third of a second or less, while you work (90 seconds on 2 cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not costly and not exhaustive"

test-costly: $(STAMP)  ## run the tests of a second and more: exports, kills, Ray, complete runs; CI runs them after make test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "costly and not exhaustive"

test-all: $(STAMP)  ## run every test, also those marked exhaustive (20 minutes); before a release and for large changes
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## repair what `make lint` can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## check types
	$(BIN)/mypy

docs: $(STAMP)  ## build the pages in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(STAMP)  ## run every benchmark in its short form
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script --quick; done

clean:  ## remove what was built, but not .venv nor runs
	rm -rf build dist docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
