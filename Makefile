# `make` alone lists what can be done. Only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo run test chaos lint format docs bench lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything that development needs (implied by the others)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pushfleet needs Python 3.11 or newer; say make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: setup ## An hour of a made-up IM product, from enqueue to the fake vendors, then exit
	@exec $(BIN)/python examples/demo.py

run: setup ## The same fleet, staying up until Ctrl-C
	@exec $(BIN)/python examples/demo.py --stay

test: setup ## Every test, two files at a time (JOBS=0: one after the other); they start their own Redis
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

chaos: setup ## Break what can break under load and compare three books; a line of JSON for each scenario
	@$(BIN)/python -m tests.chaos

lint: setup ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## Let ruff format and fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup ## Regenerate what is generated into docs/
	@$(BIN)/python -m pushfleet_workers.generate

bench: setup ## Compare with the obvious alternative; writes bench/out/latest.json
	@$(BIN)/python -m bench

lock: setup ## Refresh requirements.lock within pyproject's bounds
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra dev \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean: ## Remove the environment and everything generated
	rm -rf $(VENV) .pushfleet .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/out
