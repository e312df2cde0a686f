# Everything on a fresh machine: Python 3.11+ and make. `make demo` and `make test` install what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
N      ?= 1

.PHONY: demo test test-fast test-lowest check cases fix coverage e2e faults fuzz docs bench nightly lock \
  lock-lowest clean help

help:            ## This list
	@grep -E '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.runtime  ## Install from the lock and run the main job on the demo model, offline
	$(BIN)/saelect demo

test: $(VENV)/.dev      ## All tests but those of `make faults`, on two cores: no network, no GPU
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not fault"

test-fast: $(VENV)/.dev ## The tests that take no more than a moment each
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-lowest:     ## The same tests on the oldest release of every package, in an environment of its own
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --constraint constraints-lowest.lock --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile -m "not fault" -W default

fix: $(VENV)/.dev       ## Mend format and lint, renew pages that are written from the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/python -m tests.tree --write
	$(BIN)/python -m tests.diagram
	$(BIN)/python -m benchmarks.results
	$(BIN)/python -m flows.cli.reference docs/reference/command-line.md
	$(BIN)/python -m flows.config.reference docs/reference/config.md
	$(BIN)/python -m storage.catalog.dictionary docs/reference/catalog.md

coverage: $(VENV)/.dev  ## Lines that no test runs (compiled kernels and child processes aside)
	$(BIN)/pip install --quiet --constraint constraints.lock coverage
	$(BIN)/coverage run --source=flows,selection,storage -m pytest
	$(BIN)/coverage report --skip-covered --sort=cover

check: $(VENV)/.dev     ## Format, lint, types, import direction, layout
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_layout.py tests/test_dependencies.py tests/test_wording.py

cases: $(VENV)/.dev     ## Data as people have it: what init, a dry run and one run make of every row
	$(BIN)/python -m tests.cases.table

faults: $(VENV)/.dev    ## Tests that kill, stop or damage; then N faults of each kind at random moments
	$(BIN)/python -m pytest -n 2 --dist loadfile -m fault
	$(BIN)/python -m tests.faults_main --n $(N)
	$(BIN)/python -m tests.faults_catalog --n $(N)
	$(BIN)/python -m tests.faults_forget --n $(if $(filter 1,$(N)),12,0)
	$(BIN)/python -m tests.faults_outputs --n $(if $(filter 1,$(N)),2,0)

fuzz: $(VENV)/.dev      ## Random and damaged input: 10,000 cases each of files, configs, SAEs, SQL
	SAELECT_FUZZ_CASES=10000 $(BIN)/python -m pytest tests/test_fuzz_*.py

e2e: $(VENV)/.dev       ## The pages in a real browser (Debian's Chromium): fill, start, read, be refused
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } || \
	  { echo "e2e: chromium is not here and could not be installed"; exit 1; }
	$(BIN)/python -m tests.browser_e2e

docs: $(VENV)/.dev      ## The pages as a site in .build/site; a broken link is an error
	$(BIN)/pip install --quiet --constraint constraints.lock --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev     ## Quick benchmarks: peer, limit and ours in one run
	$(BIN)/python -m benchmarks.ranking --quick
	$(BIN)/python -m benchmarks.embedding --quick

nightly: check test fuzz faults docs  ## The slow ones: the wheel in an empty environment, full benchmarks
	bash benchmarks/support/wheel.sh
	$(BIN)/python -m tests.docs_commands
	$(BIN)/python -m tests.docs_notebook
	$(BIN)/python -m benchmarks.ranking
	$(BIN)/python -m benchmarks.embedding
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/pip install --quiet --constraint constraints.lock --editable '.[ray]'
	$(BIN)/python -m tests.ray_cluster
	$(BIN)/pip install --quiet --constraint constraints.lock --editable '.[mlflow,wandb,trackio]'
	$(BIN)/python -m pytest tests/test_orchestration_trackers.py
	$(BIN)/python -m benchmarks.trainer_loaders $(or $(TRAINERS),build/trainers)
	$(BIN)/saelect bench finetune --quick --json
	$(BIN)/python -m benchmarks.picking
	$(BIN)/python -m benchmarks.catalog
	$(BIN)/python -m benchmarks.catalog_writers
	$(MAKE) test-lowest
	$(BIN)/python -m benchmarks.compatibility .venv-beside

lock: $(VENV)/.dev      ## Rewrite the constraints from what is installed
	$(BIN)/pip freeze --exclude-editable | sed -E 's/\+cpu$$//' | grep -v '^saelect' > constraints.lock

lock-lowest:     ## Rewrite those of the oldest releases, from pyproject.toml by uv
	uv pip compile --quiet --no-annotate --no-header --python 3.11 --resolution lowest-direct \
	  --extra dev --output-file constraints-lowest.lock pyproject.toml

clean:           ## Remove the environment and build output, never a workspace
	rm -rf $(VENV) .venv-lowest .venv-beside build dist *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "saelect needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.lock | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.lock --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.lock | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.lock --editable '.[dev]'
	@touch $@ $(VENV)/.runtime
