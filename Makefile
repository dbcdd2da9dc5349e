# `make demo` and `make test` need nothing but python3 (3.11 or newer) with venv, and make:
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

.PHONY: demo test lint types docs messages screenshots mutants chaos chaos-restart throughput million clean

demo: .venv/installed
	@$(BIN)/python manage.py demo --port $(PORT)

test: $(TEST_GROUPS:%=.venv/installed-%)
	@.ci/test

lint: .venv/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed-types
	$(BIN)/mypy

docs: .venv/installed-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

# Brings the catalogues up to date with the texts; then fill in what is new, and run it again. Needs
# GNU gettext. The date goes, so that nothing changes where no text has.
messages: .venv/installed
	cd django_ninebits && \
	../$(BIN)/django-admin makemessages --all --no-obsolete --add-location file && \
	sed -i.before '/^"POT-Creation-Date:/d' locale/*/LC_MESSAGES/django.po && \
	rm locale/*/LC_MESSAGES/django.po.before && \
	../$(BIN)/django-admin compilemessages

screenshots: .venv/installed-test
	PYTHONPATH=. $(BIN)/python docs/images/take.py

# Those that survive are listed with the reason in tests/MUTANTS.md. One at a time: they share a
# database. And beside nothing else: mutmut ends what takes too long by a process number, which may be
# another's by then.
mutants: .venv/installed-mutants
	$(BIN)/mutmut run --max-children 1
	$(BIN)/mutmut results

# For two minutes, on the database of NINEBITS_TEST_DATABASE; on a server, connections are cut too.
# However long it takes, it waits for nothing without a limit.
chaos: .venv/installed-test
	NINEBITS_CHAOS_SECONDS=$${NINEBITS_CHAOS_SECONDS:-120} \
	$(BIN)/python -m pytest -vs -o faulthandler_timeout=0 tests/test_chaos.py

# On servers of its own, which are shut down and killed in the middle of it. As root, on Debian.
chaos-restart: .venv/installed-postgres .venv/installed-mariadb
	.ci/private-server postgresql $(MAKE) chaos
	.ci/private-server mariadb $(MAKE) chaos

# On the database of NINEBITS_TEST_DATABASE. More in ARGS, such as --workers 2.
throughput: .venv/installed-test
	PYTHONPATH=. $(BIN)/python -W ignore -m benchmarks.throughput $(ARGS)

# On a PostgreSQL named by NINEBITS_MILLION_DATABASE: about 10 GB, and some minutes the first time.
million: .venv/installed-test .venv/installed-postgres
	PYTHONPATH=. $(BIN)/python -m benchmarks.million

clean:
	rm -rf .venv .tox build dist mutants .coverage*

# What is missing, in one sentence, on any Python.
define CHECK_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: name another with make PYTHON=..." % sys.version_info[:2])
try:
    import sqlite3, ssl
    from ensurepip import version
    from venv import create
except ImportError as error:
    sys.exit("$(PYTHON) is incomplete (%s): on Debian or Ubuntu, apt-get install python%d.%d-venv; or name another with make PYTHON=..." % ((error,) + sys.version_info[:2]))
endef
export CHECK_PYTHON

# One that was left half made is made again.
.venv/installed: pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		command -v $(PYTHON) >/dev/null || { \
			echo "There is no $(PYTHON) on PATH: install Python 3.11 or newer, or name one with make PYTHON=..." >&2; exit 1; \
		}; \
		$(PYTHON) -c "$$CHECK_PYTHON" && $(PYTHON) -m venv --clear .venv; \
	}
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# One dependency group of pyproject.toml.
.venv/installed-%: .venv/installed
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@
