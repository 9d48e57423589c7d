# The two commands are `make demo` and `make test`; `make help` lists the rest.
# Without make: CONTRIBUTING.md gives the same as plain commands.

# The first of these that is there and supported; or name one: make demo PYTHON=python3.11
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint set-up set-up-dev clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: set-up  ## train, evaluate and draw a one-time-step detector on the synthetic shapes
	@$(BIN)/python tools/demo.py

test: set-up-dev  ## run the test suite, but for its slow part
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: set-up-dev  ## check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

set-up: python  ## make the environment, if it is missing
	@$(PYTHON) tools/set_up.py --folder $(VENV)

set-up-dev: python
	@$(PYTHON) tools/set_up.py --folder $(VENV) --dev

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10, 3.11 or 3.12 found; install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 1; }

clean:  ## remove the environment, data/shapes and work_dirs
	rm -rf $(VENV) data/shapes work_dirs
