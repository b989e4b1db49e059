# Everything is installed into .venv, in the exact versions of constraints.txt.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PYTEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help quickstart native test native-test native-targets lint types examples \
    reproduce-smoke benchmark-training benchmark-runtime clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
	    while IFS='|' read -r target text; do printf '  make %-20s %s\n' "$$target" "$$text"; done

quickstart: $(VENV)/.train ## install terselm and run the guided example
	$(BIN)/terselm quickstart

native: ## build the C library and its tools; needs a C compiler only
	$(MAKE) -C native all example

test: $(VENV)/.dev native ## run the tests (PYTEST_FLAGS="-k name" picks some)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

native-test: $(VENV)/.dev native ## test the C library, plain and with sanitizers
	$(MAKE) -C native files PYTHON=$(abspath $(BIN)/python)
	$(MAKE) -C native size test example
	$(MAKE) -C native SANITIZE=address,undefined test
	$(MAKE) -C native SANITIZE=thread test
	$(BIN)/python -m pytest native/tests/test_kernels_layout.py
	$(MAKE) -C native soak

native-targets: native-test ## the same on ARM and WebAssembly, a microcontroller, and fuzzing
	$(MAKE) -C native arm-test
	$(MAKE) -C native wasm-test
	$(MAKE) -C native microcontroller-test PYTHON=$(abspath $(BIN)/python)
	$(MAKE) -C native fuzz SECONDS=60

lint: $(VENV)/.dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## check types
	$(BIN)/mypy

examples: $(VENV)/.train ## run every script in examples/
	@set -e; for script in examples/*.py; do \
	    [ -e "$$script" ] || { echo "error: no scripts in examples/" >&2; exit 1; }; \
	    echo "== $$script"; $(BIN)/python "$$script"; \
	done

# A folder anew each time, so that every part of it runs.
reproduce-smoke: $(VENV)/.train ## run a tiny version of the tables of results
	rm -rf build/reproduce-smoke && mkdir -p build
	$(BIN)/terselm reproduce benchmarks/experiments/smoke --data python-docs \
	    --out build/reproduce-smoke

benchmark-training: $(VENV)/.train ## measure training speed
	$(BIN)/python benchmarks/training_speed.py

benchmark-runtime: $(VENV)/.dev native ## measure every engine; needs onnxruntime and openvino
	$(PIP_INSTALL) -e '.[benchmark]'
	$(BIN)/python benchmarks/runtime_speed.py --out benchmarks/results/runtime-speed
	$(BIN)/python benchmarks/runtime_plot.py benchmarks/results/runtime-speed

clean: ## remove .venv, caches and build outputs
	$(MAKE) -C native clean
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.git -prune -o -type d \( -name __pycache__ -o -name '*.egg-info' \) \
	    -prune -exec rm -rf {} +

$(VENV)/.created:
	@python=$$(tools/find_python "$(PYTHON)") && echo "$$python -m venv $(VENV)" && \
	    "$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[train]'
	@touch $@

# dev is a superset of train, so it counts for both.
$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[dev]'
	@touch $(VENV)/.train $@
