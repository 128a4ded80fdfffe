# `make demo` and `make test` need only make, python3 (3.11 or newer) with venv, and pip's index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo quick test check format clean

help:  ## Say what can be made
	@awk -F ':.*##' '/^[a-z]+:.*##/ {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp for each set of dependencies, made again when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: use make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "Installing the project with its extra '$*' into $(VENV) (once; several minutes)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[$*]'
	@touch $@

.SECONDARY: $(VENV)/.installed-demo $(VENV)/.installed-dev

demo: $(VENV)/.installed-demo  ## Score real images with the embedded model; see demo/report.html
	$(BIN)/python tools/demo.py

quick: $(VENV)/.installed-dev  ## Run the tests that need no Ray, on all cores
	$(BIN)/python -m pytest -n auto -m "not ray and not slow" $(ARGS)

# Those that need no Ray run on all cores; several of Ray's at a time would wait for one another.
test: $(VENV)/.installed-dev  ## Run the tests, offline; ARGS='...' for one run of pytest with these
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n auto -m "not ray"
	$(BIN)/python -m pytest -m ray
endif

check: $(VENV)/.installed-dev  ## Format, lint, types and spelling; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.installed-dev  ## Format, and fix what the linter can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## Remove the environment and everything generated
	rm -rf $(VENV) demo build dist *.egg-info .coverage* coverage.xml
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find iqa_core jobs tests tools benchmarks -name __pycache__ -prune -exec rm -rf {} +
