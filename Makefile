# Thin targets; the work is in kvserver, pytest, ruff and mypy.

.DEFAULT_GOAL := help
.PHONY: help run test test-clients test-compiled test-long style types bench bench-write bench-compare \
	bench-replicas bench-report bench-cost bench-larger bench-failover \
	soak steady wheel image clean

# Tests run the source as it is; `run` and `bench` an installed copy with its hot modules compiled.
VENV  := .venv
BIN   := $(VENV)/bin
RUN   := .venv-run
# A file's tests share servers: they stay together. conftest.py has the order of the files.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
BASE  ?= python:3.12-slim
IMAGE ?= kvserver
# Works without an engine, a daemon or privileges for mounts; `$(BUILDAH) images` lists the result.
BUILDAH ?= buildah --storage-driver vfs

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

run: $(RUN)/run.stamp ## install, and serve 127.0.0.1:6379 with data in ./data
	@exec $(RUN)/bin/kvserver --dir ./data

test: $(VENV)/test.stamp ## install what the tests need, and run them
	$(BIN)/python -m pytest $(PARALLEL)

test-clients: $(VENV)/clients.stamp ## Celery, rq, BullMQ ... work on a server that is killed; TESTS=...
	$(BIN)/python -m pytest --timeout 300 $(or $(TESTS),tests/clients)

# The site-packages of $(RUN) come first, and the working directory not at all: `import kvserver`
# finds the compiled package, in pytest as in the servers that the tests start.
test-compiled: $(VENV)/test.stamp $(RUN)/run.stamp ## the same tests on what `run` uses; TESTS=...
	@site=$$($(RUN)/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))') && \
	PYTHONSAFEPATH=1 PYTHONPATH=$$site:$(CURDIR) KVSERVER_TEST_COMPILED=1 \
		$(BIN)/python -m pytest $(PARALLEL) -o pythonpath=tests $(TESTS)

test-long: $(VENV)/test.stamp ## the tests that take minutes
	$(BIN)/python -m pytest -m long --timeout 3600

style: $(VENV)/test.stamp ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp ## mypy --strict
	$(BIN)/mypy

bench: $(VENV)/test.stamp $(RUN)/run.stamp ## compare with redis-server, TESTS=... of redis-benchmark
	$(BIN)/python -m benchmarks --kvserver $(RUN)/bin/kvserver $(if $(TESTS),--tests $(TESTS))

bench-write: $(VENV)/test.stamp $(RUN)/run.stamp ## the same, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks --kvserver $(RUN)/bin/kvserver --write

bench-compare: $(VENV)/test.stamp $(RUN)/run.stamp ## compare with a revision: REV=main TESTS="get set:16"
	@$(BIN)/python -m benchmarks.compare $(or $(REV),HEAD) --kvserver $(RUN)/bin/kvserver \
		$(if $(TESTS),--tests $(TESTS))

bench-replicas: $(VENV)/test.stamp $(RUN)/run.stamp ## what replicas and their acknowledgements cost
	$(BIN)/python -m benchmarks.replicas --kvserver $(RUN)/bin/kvserver --write

bench-report: $(VENV)/test.stamp $(RUN)/run.stamp ## plots of how it scales; PART="clients values keys replicas"
	$(BIN)/python -m benchmarks.scale --kvserver $(RUN)/bin/kvserver $(if $(PART),--parts $(PART))

bench-larger: $(VENV)/test.stamp $(RUN)/run.stamp ## data larger than memory, and how it holds up others
	$(BIN)/python -m benchmarks.larger --kvserver $(RUN)/bin/kvserver

bench-cost: $(VENV)/test.stamp $(RUN)/run.stamp ## where the CPU time of an operation goes, with perf
	$(BIN)/python -m benchmarks.cost --kvserver $(RUN)/bin/kvserver --write

bench-failover: $(VENV)/test.stamp $(RUN)/run.stamp ## how long writes wait for a planned failover
	$(BIN)/python -m benchmarks.failover --kvserver $(RUN)/bin/kvserver

soak: $(VENV)/test.stamp ## faults under load, DURATION=600 seconds, SEED=...
	$(BIN)/python tests/soak.py --duration $(or $(DURATION),600) $(if $(SEED),--seed $(SEED))

steady: $(VENV)/test.stamp $(RUN)/run.stamp ## whether memory stays flat, and pauses beside redis-server's; DURATION=1800
	$(BIN)/python -m benchmarks.steady --kvserver $(RUN)/bin/kvserver --duration $(or $(DURATION),1800)

wheel: $(RUN)/bin/python ## build a wheel of kvserver, compiled, in dist/
	@rm -rf build
	@$< -m pip wheel -q --no-deps -w dist .

image: ## build the container image with docker, else buildah
	@if docker info >/dev/null 2>&1; then \
		docker build --build-arg BASE=$(BASE) -t $(IMAGE) .; \
	elif command -v buildah >/dev/null; then \
		$(BUILDAH) bud --isolation chroot --format docker --build-arg BASE=$(BASE) -t $(IMAGE) .; \
	else \
		echo "make image needs a running docker engine, or buildah" >&2; exit 1; \
	fi

clean: ## remove the environment and caches, never the data
	rm -rf $(VENV) $(RUN) .bench build dist *.egg-info tests/clients/node/node_modules .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

SOURCES := $(shell find kvserver -name '*.py')

$(VENV)/bin/python $(RUN)/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv $(dir $(@D)) && exit 0; rm -rf $(dir $(@D)); exit 1; \
		fi; \
	done; \
	echo "kvserver needs Python 3.11 or newer; none is on PATH" >&2; exit 1

# The stamps are newer than what they were made from when the environment is up to date.
$(RUN)/run.stamp: pyproject.toml setup.py $(SOURCES) | $(RUN)/bin/python
	@echo "Installing kvserver into $(RUN); compiling it takes about half a minute"
	@touch $@.begun
	@rm -rf build  # or modules that are gone from the source would be installed from there
	@$(RUN)/bin/python -m pip install -q --upgrade .
	@$(RUN)/bin/python -P -c 'import kvserver; kvserver.COMPILED or print("It is not compiled.")'
	@mv $@.begun $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/bin/python
	@echo "Installing kvserver and what its tests need into $(VENV)"
	@KVSERVER_PURE=1 $(BIN)/python -m pip install -q -e '.[test]'
	@touch $@

$(VENV)/clients.stamp: $(VENV)/test.stamp tests/clients/node/package.json
	@echo "Installing the clients that are tested, from PyPI and npm"
	@KVSERVER_PURE=1 $(BIN)/python -m pip install -q -e '.[test,clients]'
	@if command -v npm >/dev/null; then \
		cd tests/clients/node && \
		npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error; \
	else \
		echo "npm is missing: the clients of node are not tested"; \
	fi
	@touch $@
