# `make help` lists the targets. Everything runs in .venv, which `make setup` fills.

PYTHON     ?= python3
TORCH      ?= auto
EXTRAS     ?= dev
DATA_DIR   ?=
OUTPUT_DIR ?= quickstart
WORKERS    ?= 2

VENV   := .venv
INSIDE := $(VENV)/bin/python
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: PYTHON=python3.12  TORCH=auto|cpu|default  EXTRAS=dev,lm-eval"
	@echo "             DATA_DIR=folder  OUTPUT_DIR=folder"

setup: $(STAMP) ## make .venv and install the package with everything it needs

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	PYTHON="$(PYTHON)" TORCH="$(TORCH)" EXTRAS="$(EXTRAS)" bash scripts/setup.sh
	@touch $@

quickstart: setup ## data, plans, analysis, training, sampling, scores, one page: minutes on a laptop
	$(INSIDE) -m hbd3lm.cli quickstart --output_dir "$(OUTPUT_DIR)" \
	    $(if $(DATA_DIR),--data_dir "$(DATA_DIR)")

lint: setup ## ruff: style and common mistakes
	$(INSIDE) -m ruff check .
	$(INSIDE) -m ruff format --check .

# worksteal: the tests of a file, and what they share, stay with one worker as far as they can.
test: lint ## lint and the whole test suite
	OMP_NUM_THREADS=1 $(INSIDE) -m pytest -n $(WORKERS) --dist worksteal

clean: ## remove .venv and caches; data/, outputs/ and quickstart/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
