# The two commands of a newcomer are `make train` and `make test`; each builds .venv
# first if it is missing or older than the files that describe it.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test lint format clean

train: .venv/built
	$(BIN)/python run.py --flagfile=models/digits.flags

test: .venv/built
	$(BIN)/python -m pytest

lint: .venv/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/built: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
