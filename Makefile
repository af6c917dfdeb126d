# The two commands of a newcomer are `make train` and `make test`; each builds .venv
# first if it is missing or older than the files that describe it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test lint format smoke clean

train: $(VENV)/built
	$(BIN)/python run.py --flagfile=models/digits.flags

test: $(VENV)/built
	$(BIN)/python -m pytest

lint: $(VENV)/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A few steps of everything, in a directory of its own: for another Python.
smoke: $(VENV)/built
	rm -rf build/smoke
	$(BIN)/python run.py train --flagfile=models/digits.flags --steps=8 --run_dir=build/smoke
	$(BIN)/python run.py evaluate --run_dir=build/smoke
	$(BIN)/python run.py export --run_dir=build/smoke --format=keras
	$(BIN)/python run.py verify --run_dir=build/smoke

$(VENV)/built: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

clean:
	rm -rf .venv .venv-oldest build *.egg-info
