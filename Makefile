# make demo: train a small model on embedded data, here.   make test: all tests.
# Both make .venv first, with the tested versions. For a torch build other than pip's default choice:
#   make test PIP_TORCH="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_TORCH ?=
BIN := .venv/bin
# Two processes of one thread each: threads beyond the cores would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench docs clean
.DELETE_ON_ERROR:

demo: .venv/.core
	$(BIN)/formery fit digits --out runs/digits --resume

test: .venv/.test
	$(PYTEST)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.test
	$(BIN)/python -m benchmarks

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# torch comes first and alone: the version of constraints.txt, before anything else asks for one.
.venv/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(PIP_TORCH) "$$(grep '^torch==' constraints.txt)"
	touch $@

# One stamp a set of extras; what is already there costs a second.
.venv/.core: pyproject.toml constraints.txt .venv/.torch
	$(PIP) -c constraints.txt -e '.[export]'
	touch $@

.venv/.test: pyproject.toml constraints.txt .venv/.torch
	$(PIP) -c constraints.txt -e '.[test]'
	touch $@

.venv/.docs: pyproject.toml constraints.txt .venv/.torch
	$(PIP) -c constraints.txt -e '.[docs]'
	touch $@
