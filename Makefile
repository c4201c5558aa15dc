# Two commands set everything up: `make ablation` runs the main study, `make test` the tests.
# Both build .venv from pyproject.toml and the pinned constraints.txt, with plain venv and pip.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
DOCS := .venv-docs
TWO := $(BIN)/python -m pytest -n 2 --dist worksteal
# Two processes with two threads each on two cores are up to ten times slower than one each.
export OMP_NUM_THREADS ?= 1
# Two test processes and every process that a test starts read what the first one compiled.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: docs help install ablation test test-fast test-slow lint bench bench-gpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

install: $(STAMP)  ## build .venv

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e ".[study,analysis,pcam,test]"
	touch $(STAMP)

ablation: $(STAMP)  ## the controller ablation of Ye et al. 2020 on this machine (ARGS="--seeds 6")
	$(BIN)/python sweeps/ablation_controller.py $(ARGS)

lint: $(STAMP)  ## ruff, the import contracts, and mypy where it is strict
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint  ## lint, then every test but the slow fault tests
	$(TWO) -m "not slow and not ray"
	$(BIN)/python -m pytest -m "ray and not slow"

test-fast: lint  ## lint, then the short tests that start no Ray
	$(TWO) -m "not slow and not ray and not long"

# Tests of Ray one at a time: two clusters do not touch each other (`-n 2` passes, in 20 min instead of 27), but on
# two cores some wait longer than they should. Who has four cores takes two.
test-slow: $(STAMP)  ## the fault tests that kill real runs
	status=0; $(TWO) -m "slow and not ray" || status=1; \
	$(BIN)/python -m pytest -m "slow and ray" || status=1; exit $$status

bench: $(STAMP)  ## every benchmark, as a table in docs/benchmarks.md
	PYTHONPATH=tests/support $(BIN)/python tests/benchmarks/run_all.py

bench-gpu: $(STAMP)  ## all that is asked of a GPU, as docs/benchmarks_gpu.md (ARGS="--only sharing")
	PYTHONPATH=tests/support $(BIN)/python tests/benchmarks/bench_gpu.py $(ARGS)

docs: $(DOCS)/.installed  ## the API reference as build/docs, no network in the pages
	$(DOCS)/bin/mkdocs build --strict --quiet

$(DOCS)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check \
	    mkdocs==1.6.1 mkdocstrings==1.0.8 mkdocstrings-python==2.0.11 mermaidx==0.10.1
	touch $@

# MLflow 3 needs other versions than our pins: for `analysis/export.py --to mlflow`, and its test.
.venv-mlflow/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/pip install --quiet --disable-pip-version-check -e ".[analysis]" "mlflow>=3,<4"
	touch $@

clean:  ## remove .venv and caches; results stay
	rm -rf $(VENV) *.egg-info build .pytest_cache .ruff_cache .import_linter_cache .mypy_cache
