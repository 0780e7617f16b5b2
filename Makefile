# Vigil's daily commands. Nothing but Python 3.11+ is needed: the servers come from packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# demo: two days of history, then live. none: an empty Vigil that waits for your events.
SOURCE ?= demo
ARGS ?=
# Test processes, each with servers of its own: three keep two cores busy, as tests wait a lot.
WORKERS ?= 3

.PHONY: help venv run test lint format types bench docs lock clean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.locked ## Make .venv and install exactly what the lock says

$(VENV)/.locked: requirements.txt requirements-dev.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Vigil needs Python 3.11 or later: make venv PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.txt -r requirements-dev.txt
	@touch $@

run: venv ## Start everything here: web, consumer, worker, servers, demo (SOURCE=none: no demo)
	@exec $(BIN)/python manage.py standalone --source $(SOURCE) $(ARGS)

test: venv ## Run every test against the embedded servers (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: venv ## Linter, formatter and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

format: venv ## Put the source into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## Events per second of the whole consumer (ARGS=--latency: how long they take)
	$(BIN)/python manage.py benchmark $(ARGS)

docs: venv ## Check that the documents' commands, keys, links and versions are true
	$(BIN)/python -m pytest --no-servers tests/architecture tests/docs $(ARGS)

lock: venv ## Renew the locks from requirements.in and requirements-dev.in
	@for name in requirements requirements-dev; do \
		CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --strip-extras \
			--allow-unsafe --generate-hashes --no-emit-index-url --no-emit-trusted-host \
			--no-emit-find-links --no-emit-options --output-file $$name.txt $$name.in || exit 1; \
	done

clean: ## Remove caches, the embedded servers' data and .venv
	rm -rf .vigil .mypy_cache .pytest_cache .ruff_cache staticfiles $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
