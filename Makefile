# Each target makes its own environment first; `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV ?= .venv
# What is installed there: the working tree, or a wheel (PACKAGE=dist/asyncflax-0.1.0-py3-none-any.whl, as CI does).
PACKAGE ?= --editable .
# Another JAX than the pinned one, for example JAX="jax==0.10.0 jaxlib==0.10.0" VENV=.venv-oldest.
JAX ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What the recipes of other frameworks (examples/) and the writer of W&B need.
FRAMEWORKS := $(VENV)/.frameworks
# Docstrings' examples are compiled quickly rather than well, and what was compiled is kept, as tests/conftest.py does for the tests.
QUICKLY := XLA_FLAGS=--xla_backend_optimization_level=0 JAX_COMPILATION_CACHE_DIR=.pytest_cache/xla \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

.PHONY: demo test test-all doctest lint bench notebooks wheel clean

demo: $(READY)
	$(BIN)/python launch/train.py --config=configs/digits.py --workdir=demo

test: $(READY) doctest
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

test-all: $(READY) $(FRAMEWORKS) doctest
	XLA_FLAGS=--xla_backend_optimization_level=3 HYPOTHESIS_PROFILE=all $(BIN)/pytest -n auto --dist loadfile

doctest: $(READY)
	$(QUICKLY) $(BIN)/pytest -n auto --doctest-modules --ignore-glob='*asyncflax/commands/*' --pyargs asyncflax

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/overhead.py --model mlp
	$(BIN)/python benchmarks/overhead.py --model cifar10_quick --alternations 20 --events 4
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/own_loop.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/traces.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/ensembles.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/sweep_numbers.py
	$(BIN)/python benchmarks/meter.py
	$(BIN)/python benchmarks/convolutions.py --batches 32 --convolutions im2col forward_gradients
	$(BIN)/python benchmarks/rounds_filled.py
	$(BIN)/python benchmarks/round_speed.py --workers 16 --batch 32 --widths 1 4 --seconds 1 --alternations 5
	$(BIN)/python benchmarks/mesh.py --alternations 5 --service gamma
	$(BIN)/python benchmarks/update_cost.py
	$(BIN)/python benchmarks/input_pipeline.py --sizes 224 --batches 10 --alternations 3
	$(BIN)/python benchmarks/input_wait.py --events 4 --chunks 2 --alternations 3

notebooks: $(READY)
	$(BIN)/python tests/test_notebooks.py

# The sdist and, made of it, the wheel, as PyPI would take them.
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf .venv* build dist demo .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asyncflax needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(if $(JAX),$(BIN)/pip install --quiet --disable-pip-version-check $(JAX))
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(PACKAGE)
	@touch $@

$(FRAMEWORKS): $(READY)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --requirement requirements.txt --group nightly
	@touch $@
