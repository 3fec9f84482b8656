# wsigen: `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU wheels. Where it does not answer within 10 s, or is set to nothing, PyTorch comes from PyPI, with
# CUDA on Linux. A torch that is in .venv already is kept.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# One thread per worker: OpenMP teams on shared cores cost more than they bring.
export OMP_NUM_THREADS ?= 1

# Succeeds if the index answers. The alarm also ends a look-up of its name that hangs.
PROBE := import signal, sys, urllib.request as web; signal.alarm(10); web.urlopen(sys.argv[1] + "/torch/", timeout=5)

.PHONY: help install demo test check docs bench format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@if ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	    index=$(TORCH_INDEX); \
	    if [ -n "$$index" ] && ! $(BIN)/python -c '$(PROBE)' "$$index" 2>/dev/null; then \
	        echo "$$index does not answer: PyTorch comes from pip's usual index"; index=; \
	    fi; \
	    $(BIN)/python -m pip install -q -c constraints.txt torch $${index:+--extra-index-url $$index}; \
	fi
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt  # torch is there, this one or the user's own
	$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## Make .venv and install wsigen with its development tools

demo: install ## Generate the demo slide (4096x4096 px) from examples/demo.geojson into demo/
	@mkdir -p demo
	$(BIN)/wsigen generate demo/demo.ome.tiff --config configs/demo.yaml --overwrite

test: install ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install docs ## Lint, type check, test of the layers, documentation
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

docs: install ## Build the documentation into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: install ## Measure the figures of docs/benchmarks.md and print them as a table
	$(BIN)/python -m benchmarks

format: install ## Sort imports and apply the linter's safe fixes
	$(BIN)/ruff check --fix .

clean: ## Remove what make made
	rm -rf $(VENV) demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
