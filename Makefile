# Two commands are all one needs: `make chat` and `make test`. `make help` lists the rest.

PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))) python3)
BIN := .venv/bin
PACKAGES := localai quantize tui models
# Each test may run a model on all cores: more of them at once than this would only wait for each other.
AT_ONCE := --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: help chat install test lint types layers tests docs screenshot snapshots clean

help:
	@echo "make chat        install, fetch the starter model if none is there, open the chat"
	@echo "make install     install only; then: $(BIN)/localai --help"
	@echo "make test        lint, types, layers and all tests"
	@echo "make docs        write docs/commands.md anew from the commands"
	@echo "make screenshot  take docs/screenshot.svg anew, with the real program"
	@echo "make snapshots   accept what the screens look like now as right"
	@echo "make clean       remove .venv and caches; models and conversations stay"

chat:
	@if [ ! -t 0 ] || [ ! -t 1 ]; then \
		echo "make chat needs a terminal. Without one:" >&2; \
		echo "  make install && $(BIN)/localai models pull smollm2:135m" >&2; \
		echo "  $(BIN)/localai ask \"What is 2 + 2?\"" >&2; exit 2; fi
	@$(MAKE) --no-print-directory install
	@$(BIN)/localai chat --starter

install: .venv/.installed

.venv/.installed: pyproject.toml install.py
	@$(PYTHON) install.py

.venv/.installed-test: pyproject.toml install.py
	@$(PYTHON) install.py test

test: lint types layers tests

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-test
	$(BIN)/mypy

layers: .venv/.installed-test
	$(BIN)/lint-imports

tests: .venv/.installed-test
	$(BIN)/pytest $(AT_ONCE)

docs: .venv/.installed-test
	$(BIN)/python docs/generate.py

screenshot: .venv/.installed-test
	$(BIN)/python docs/screenshot.py

snapshots: .venv/.installed-test
	$(BIN)/pytest tests/tui --snapshot-update

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
