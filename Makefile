# `make demo` and `make test` need nothing but python3 (3.11 or newer), pip and make:
# the rest is installed into .venv, once, and again whenever pyproject.toml changes.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

TEST_GROUPS := test
ifneq ($(NINEBITS_POSTGRES_URL),)
TEST_GROUPS += postgres
endif
ifneq ($(NINEBITS_MARIADB_URL),)
TEST_GROUPS += mariadb
endif

.PHONY: demo test lint types mutants clean

demo: .venv/installed
	@$(BIN)/python manage.py demo --port $(PORT)

test: $(TEST_GROUPS:%=.venv/installed-%)
	@.ci/test

lint: .venv/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed-types
	$(BIN)/mypy

# Those that survive are listed with the reason in tests/MUTANTS.md. One at a time: they share a
# database.
mutants: .venv/installed-mutants
	$(BIN)/mutmut run --max-children 1
	$(BIN)/mutmut results

clean:
	rm -rf .venv .tox build dist mutants .coverage*

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: name another with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# One dependency group of pyproject.toml.
.venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@
