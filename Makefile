# Everything runs in .venv, which make sets up. Needed: python3 (3.11 or later), make and a network. Without Java, make
# installs a package of it. For another Python: make PYTHON=python3.12 test

PYTHON ?= python3
BIN := .venv/bin
# Tests of pure code: fast enough for thousands of examples a property.
PURE := tests/flow tests/coordination/test_allotter.py tests/coordination/test_allotment_datagrams.py \
  tests/coordination/test_simulation.py tests/livecounts/test_datagrams.py tests/livecounts/test_signing.py \
  tests/metering tests/protocol tests/cache/test_entry.py tests/monitoring/test_points.py \
  tests/monitoring/test_failures.py tests/engine/test_reorder_buffer.py tests/engine/test_row_stream.py
QUICK := $(PURE) tests/ai tests/endpoint/test_endpoint.py tests/text tests/validation tests/test_docs.py tests/test_errors.py \
  tests/test_policy.py

# The machine's own Spark or Python must not replace the one in .venv; and without bytecode each process would compile
# the library anew.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON PYSPARK_SUBMIT_ARGS
unexport SPARK_CONF_DIR SPARK_HOME SPARK_REMOTE VIRTUAL_ENV

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo example test test-fast test-slow check site package bench notebooks clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready-for-demo ## Run real local models and Spark over a small table: no key, nothing to set up
	$(BIN)/spark-llm demo

example: .venv/ready-for-dev ## Run the nightly pipeline of examples/nightly for two nights
	$(BIN)/python -m examples.nightly.run

test: .venv/ready-for-dev ## Run the tests, those of Spark on classic Spark and on Spark Connect
	SPARK_LLM_TEST_SESSION=both $(BIN)/python -m pytest tests -n 3 --dist loadgroup --no-loadscope-reorder

test-fast: .venv/ready-for-dev ## Run the quick tests of pure code, without property tests, in 20 seconds
	$(BIN)/python -m pytest -q $(QUICK) -m "not waits and not hypothesis"

test-slow: .venv/ready-for-dev ## Run property tests on 2,000 examples, and the tests that take minutes or MLflow (1 GB)
	$(BIN)/python -m pytest $(PURE) --hypothesis-profile=explore
	SPARK_LLM_TEST_SESSION=connect $(BIN)/python -m pytest tests/integration/spark -m "not models"
	$(BIN)/python -m pytest tests -m "slow or on_connect"

check: .venv/ready-for-dev ## Lint, check the format, the types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict spark_llm tests benchmarks examples notebooks docs/site
	$(BIN)/python -m pytest -q tests/test_architecture.py

site: .venv/ready-for-dev ## Build the documentation site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

package: .venv/ready-for-dev ## Build the wheel and the sdist into dist, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

bench: .venv/ready-for-dev ## Run the benchmarks: requests, rows a second, memory
	$(BIN)/python -m benchmarks

notebooks: .venv/ready-for-dev ## Run every notebook and store its output
	$(BIN)/python notebooks/run.py

clean: ## Remove .venv and every other file that the targets made
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	rm -rf artifacts derby.log metastore_db spark-warehouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One .venv: the demo installs only its own packages; dev contains the demo, and adds the rest on demand.
.venv/ready-for-demo: pyproject.toml constraints.txt
	$(call install,demo)
	touch $@

.venv/ready-for-dev: pyproject.toml constraints.txt
	$(call install,dev)
	touch .venv/ready-for-demo $@

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is older than 3.11. Hint: make PYTHON=python3.11 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: [$(1)]. This happens once and takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]' -c constraints.txt
endef
