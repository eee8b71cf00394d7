PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests start many programs. Each would compile the package if it may not keep the result.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check fix coverage mutants bench docs reference pictures bench-move

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# With the long ones: storms, kills at each statement, older PostgreSQLs, the provider's description on each engine.
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m ""

# With the types of all that the public modules show, and the number of these modules.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	PYTHONPATH=. $(BIN)/pyright --verifytypes aiodbclient --ignoreexternal > $(VENV)/types.txt || { cat $(VENV)/types.txt; exit 1; }
	@public=$$(sed -n 's/^Public modules: //p' $(VENV)/types.txt); test $$public -le 16 || { \
	  echo "$$public public modules, at most 16: private ones begin with an underscore"; cat $(VENV)/types.txt; exit 1; }

# Fix what ruff can fix.
fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Fails below the minimum in pyproject.toml.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --cov --cov-report=term

# Mutation tests of the pure modules. Lists the mutants that no test notices; `.venv/bin/mutmut show NAME` shows one.
# Takes 22 minutes on two processors. A run that was stopped continues where it was.
mutants: $(VENV)/.dev
	$(BIN)/mutmut run
	$(BIN)/mutmut results

bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable . --group bench
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/pacing_cost.py
	$(BIN)/python benchmarks/pacing.py
	PYTHONPATH=. $(BIN)/python benchmarks/limiters.py
	$(BIN)/python benchmarks/sandbox.py
	$(BIN)/python benchmarks/bulk.py
	$(BIN)/python benchmarks/tenants.py
	$(BIN)/python benchmarks/signups.py
	$(BIN)/python benchmarks/pools.py

# Write the page of the command, as its --help says it.
reference: $(VENV)/.dev
	COLUMNS=80 $(BIN)/typer aiodbclient._cli.app utils docs --name aiodbclient --output docs/reference/command.md

# Draw the pictures of the site.
pictures: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable . --group bench
	$(BIN)/python benchmarks/pictures.py
	$(BIN)/python benchmarks/terminal.py

# Moves of tenants under load.
bench-move: $(VENV)/.dev
	$(BIN)/python -m benchmarks.move

# Build the site and test it, in Chromium too if it is installed.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # with --quiet, a dead link would pass
	$(BIN)/python -m pytest -q docs/checks
	@echo The site is in site/

# A stamp file records that the packages of pyproject.toml are installed: for the demo, or for development.
$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aiodbclient needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' # the first that knows --group
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,sandbox]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@
