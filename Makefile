# make run      install and start the service on 127.0.0.1:8080
# make install  install into .venv
# make test     format, lint, types, contracts, tidy and all tests
# make bench    the gateway beside LiteLLM and nginx, and the ledger's figures
# make lock     resolve the dependencies anew

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run install test check bench lock clean

run: $(VENV)/.installed
	@exec $(BIN)/rempart up

install: $(VENV)/.installed

$(VENV)/.installed: locks/run.lock pyproject.toml
	@echo "Installing into $(VENV) (about a minute) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; this is $$($(PYTHON) -V). Set PYTHON=python3.11 or later."; exit 3; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r locks/run.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed locks/test.lock
	@$(PIP) install --require-hashes -r locks/test.lock
	@tools/chromium.sh
	@touch $@

check: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/tidy.py

test: check
	$(BIN)/pytest -n $$((2 * $$(nproc))) --dist loadfile  # two a core: they wait for disks, clocks and each other

bench: $(VENV)/.tested
	$(BIN)/python -m rempart.bench --out build/bench

lock:
	$(BIN)/python -m pip --disable-pip-version-check --quiet install uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml locks/build.in -o locks/run.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c locks/run.lock locks/test.in -o locks/test.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --override locks/litellm.override locks/litellm.in -o locks/litellm.lock

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
