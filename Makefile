# README's commands. Everything happens in .venv, .demo and .airflow inside this folder.
PYTHON ?= python3.11
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: help demo unit test matrix airflow lint docs bench chaos constraints clean

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv resolves and unpacks Airflow several times faster than pip; it comes from the package index like the rest.
.venv/.base: pyproject.toml constraints.txt
	@echo "Installing into .venv …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@$(UV) --editable '.[simulator]'
	@touch $@

.venv/.dev: .venv/.base
	@echo "Installing the development tools into .venv …"
	@$(UV) --editable '.[simulator,parquet]' --group dev
	@touch $@

demo: .venv/.base ## run a campaign end to end against the simulator and show its outcomes
	@$(BIN)/python -m demo

airflow: .venv/.base ## start Airflow with the simulator and the Dags, to click through
	@$(BIN)/python -m demo --serve

test: .venv/.dev lint ## everything the suite can run on this machine
	@$(BIN)/pytest --numprocesses 2 --dist loadgroup

unit: .venv/.dev ## the tests that start no Airflow process: under a minute
	@$(BIN)/pytest tests/unit tests/contract -m 'not airflow and not slow' --numprocesses 2 --dist loadgroup

matrix: .venv/.dev ## unit and contract tests on every Python from 3.11 to 3.13 that this machine has
	@.ci/matrix

lint: .venv/.dev ## ruff, mypy and codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

bench: .venv/.dev ## measure speed and cost beside what people would use instead
	@$(BIN)/python -m tests.benchmarks

chaos: .venv/.dev ## kill, cut off and clear 1,000 times, and count who was called twice or not at all
	@$(BIN)/python -m tests.chaos --output docs/_static/chaos.txt

docs: .venv/.dev ## build the documentation into docs/_build
	@$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

constraints: .venv/.base ## renew constraints.txt from the package index
	@$(BIN)/uv pip compile --quiet --upgrade --group dev --all-extras pyproject.toml --no-header --no-annotate \
		--python-version 3.11 --output-file constraints.txt
	@sed -i '1i # The versions this checkout is developed and tested with. Renew: make constraints' constraints.txt

clean: ## remove everything the other targets made
	rm -rf .venv .venv-* .demo .airflow docs/_build .pytest_cache .mypy_cache .ruff_cache .coverage
