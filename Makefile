# wsigen: `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU wheels; unreachable or unset, pip falls back to its usual index. Skipped where torch is there.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# One thread per worker: OpenMP teams on shared cores cost more than they bring.
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test check bench format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -c 'import torch' 2>/dev/null || \
	    $(BIN)/python -m pip install -q -c constraints.txt torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed ## Make .venv and install wsigen with its development tools

demo: install ## Generate the demo slide (4096x4096 px) from examples/demo.geojson into demo/
	@mkdir -p demo
	$(BIN)/wsigen generate demo/demo.ome.tiff --config configs/demo.yaml --overwrite

test: install ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install ## Lint, type check, layer test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: install ## Measure the figures of docs/benchmarks.md and print them as a table
	$(BIN)/python -m benchmarks

format: install ## Sort imports and apply the linter's safe fixes
	$(BIN)/ruff check --fix .

clean: ## Remove what make made
	rm -rf $(VENV) demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
