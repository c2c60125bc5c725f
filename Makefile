# Everything a newcomer types: `make run`, `make test`, `make lint`, `make bench`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
ADDRESS ?= 127.0.0.1
PORT ?= 8501
# pytest's exit code where ARGS choose tests of the one kind alone. Browsers want the processor for themselves.
NONE_CHOSEN := 5

.PHONY: help run test test-large test-wheel cluster lint format docs audit bench bench-core \
	bench-vectorizers bench-peers bench-dtypes bench-precision bench-scans bench-dashboard bench-cluster \
	bench-transfer chaos screenshots browser clean

help:
	@echo "make run    the dashboard on http://$(ADDRESS):$(PORT), with the embedded server;"
	@echo "            make run EMBEDCACHE_URL=redis://localhost:6379 uses a server of yours"
	@echo "make test   all tests, on real servers and in a real browser"
	@echo "make test-large  one batch of 100,000 entries: how long the server is held up, and how much memory it takes"
	@echo "make test-wheel  the built wheel, installed where nothing else is: the dashboard, types, other Pythons"
	@echo "make cluster  many of those tests once more on a Redis Cluster, with longer failovers and moves of slots"
	@echo "make lint   ruff (flake8-bandit's rules among its own), mypy --strict, import contracts"
	@echo "make docs   the documentation as a site of its own, in site/"
	@echo "make format ruff's formatting and safe fixes"
	@echo "make audit  known vulnerabilities of the packages installed here"
	@echo "make bench  the cache beside raw redis-py, vectorizers beside their model, then the cache beside RedisVL's"
	@echo "            and LangChain's; make bench-core, bench-vectorizers and bench-peers take one each"
	@echo "make bench-dtypes  memory and speed of each dtype"
	@echo "make bench-precision  what float16 and int8 lose, on 10,000 sentences"
	@echo "make bench-scans      how fast a cache of a million entries is walked over"
	@echo "make bench-dashboard  the pages in a browser, on a cache of a million entries"
	@echo "make chaos  four processes embed while their server is killed, stopped and filled, for five minutes;"
	@echo "            make chaos ARGS=\"--seconds 60\" for one"
	@echo "make bench-cluster    batches on a Redis Cluster beside a single server"
	@echo "make bench-transfer   export and restore: entries per second, memory; ARGS=\"--entries 1000000\" for a million"
	@echo "make screenshots      the pictures in README and docs, taken anew"

run: $(VENV)/.run
	@$(BIN)/python -m streamlit run dashboard.py --server.address $(ADDRESS) --server.port $(PORT)

test: $(VENV)/.dev browser
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not browser" $(ARGS) || [ $$? -eq $(NONE_CHOSEN) ]
	$(BIN)/python -m pytest -m browser $(ARGS) || [ $$? -eq $(NONE_CHOSEN) ]

test-large: $(VENV)/.dev
	EMBEDCACHE_TEST_BATCH=100000 $(BIN)/python -m pytest tests/test_large_batches.py $(ARGS)

test-wheel: $(VENV)/.dev browser
	$(BIN)/python -m pytest tests/wheel $(ARGS)

# Tests of what a Cluster can do, too: not of one server's words about itself, of its replicas, of programs of others.
ON_CLUSTER := audit cluster_failover contract convert editing flight_locks inspector removal removal_ends restore sampling \
	transfer transfer_layouts transfer_readers transfer_resumed ttl walking

cluster: $(VENV)/.dev
	EMBEDCACHE_TEST_CLUSTER=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ON_CLUSTER:%=tests/test_%.py) \
		-k "not (who_it_is_and_how or refuses_half_way or redisvl_reads_what or whatever_a_cache_takes or metadata_alone)" $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strictly: a link that leads nowhere ends the build. The variable silences an advertisement.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

audit: $(VENV)/.dev
	@$(BIN)/python tests/audit_packages.py

bench: bench-core bench-vectorizers bench-peers

bench-core: $(VENV)/.run
	$(BIN)/python benchmarks/core.py $(ARGS)

bench-vectorizers: $(VENV)/.run
	$(BIN)/python benchmarks/vectorizers.py

bench-peers: $(VENV)/.bench
	$(BIN)/python benchmarks/compare.py $(ARGS)

bench-dtypes: $(VENV)/.run
	$(BIN)/python benchmarks/dtypes.py $(ARGS)

bench-precision: $(VENV)/.run
	$(BIN)/python benchmarks/precision.py $(ARGS)

bench-scans: $(VENV)/.run
	$(BIN)/python benchmarks/scans.py $(ARGS)

bench-dashboard: browser
	$(BIN)/python benchmarks/dashboard.py $(ARGS)

chaos: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python tests/chaos/chaos.py $(ARGS)

bench-cluster: $(VENV)/.dev
	$(BIN)/python benchmarks/cluster.py $(ARGS)

bench-transfer: $(VENV)/.dev
	$(BIN)/python benchmarks/transfer.py $(ARGS)

screenshots: browser
	$(BIN)/python tests/take_screenshots.py

browser: $(VENV)/.dev
	@$(BIN)/python tests/install_browser.py

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "embedcache needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "This Python cannot make virtual environments (Debian: apt-get install python3-venv)"; exit 1; }

# A stamp per set of packages: a second `make run` installs nothing and asks no network.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing embedcache with its server, model and dashboard (a few minutes the first time) ..."
	@$(PIP) --editable ".[server,hf,dashboard]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.run
	@echo "Installing what the tests need ..."
	@$(PIP) --editable ".[server,hf,dashboard,auth,dev]"
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt $(VENV)/.run
	@echo "Installing what the cache is compared with ..."
	@$(PIP) --editable ".[server,hf,dashboard,bench]"
	@touch $@
