# Python 3.11 or newer and make: nothing else has to be there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed

.PHONY: demo test lint bench pictures table clean

demo: $(INSTALLED)            ## one signed webhook of every kind, all the way into the sandbox
	$(BIN)/relay demo

test: $(INSTALLED) lint       ## the whole suite, on SQLite and on PostgreSQL
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(INSTALLED)            ## style, types, and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(INSTALLED)           ## each figure beside its ceiling, in one run
	$(BIN)/python benchmarks/bench.py

pictures: $(INSTALLED)        ## the README's picture of the demo
	$(BIN)/python docs/pictures.py

table: $(INSTALLED)           ## the README's table of providers
	$(BIN)/python docs/table.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
