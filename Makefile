# The targets a newcomer needs; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 100
TIMES ?= 1
# They take the whole machine, and what runs beside them would wait too long.
CROWDS := tests/peers/test_hostile_sockets.py tests/peers/test_memory_bound.py

.PHONY: help install install-dev run test test-peers chaos lint format types bench simulate simulate-cluster planted model lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s'|'

$(VENV)/.runtime: requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" bash .ci/venv $(VENV) requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	@PYTHON="$(PYTHON)" bash .ci/venv $(VENV) requirements-dev.lock
	@touch $@ $(VENV)/.runtime

install: $(VENV)/.runtime ## create .venv with `headwater` in .venv/bin

install-dev: $(VENV)/.dev ## the same with what tests, lint and types need

run: install ## start a broker on the embedded default; make run ARGS="--http 127.0.0.1:9181" for more
	@exec $(BIN)/headwater start $(ARGS)

test: install-dev ## unit, contract and simulation tests; needs nothing but Python
	@$(BIN)/python -m pytest -n 2

test-peers: install-dev ## tests against MinIO, Kafka's tools and other clients (installs them)
	@bash tests/peers/install.sh
	@$(BIN)/python -m pytest $(CROWDS)
	@$(BIN)/python -m pytest tests/peers -n 3 --dist loadfile $(addprefix --ignore=,$(CROWDS))

chaos: install-dev ## real brokers on MinIO under faults, table and chart: make chaos FAULT=kill-leader
	@bash tests/peers/install.sh
	@$(BIN)/python -m tests.chaos $(FAULT) --times $(TIMES) --write

lint: install-dev ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install-dev ## apply ruff's fixes and format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

types: install-dev ## mypy --strict
	@$(BIN)/mypy

bench: install-dev ## the benchmark table (see bench/README.md)
	@$(BIN)/python -m bench

simulate: install-dev ## whole brokers under faults: make simulate SEEDS=1000; PLACES=no for seeds alone
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(if $(filter no,$(PLACES)),--no-places)

simulate-cluster: install-dev ## the same with several brokers at a time: make simulate-cluster SEEDS=1000
	@$(BIN)/python -m tests.simulation --brokers --seeds $(SEEDS)

planted: install-dev ## each planted bug is found by the simulation
	@$(BIN)/python -W ignore -m tests.planted

model: install-dev ## the storage protocol as models, explored exhaustively; FULL=yes: larger sizes
	@$(BIN)/python -m docs.model $(if $(filter yes,$(FULL)),--full)

lock: install-dev ## pin every dependency anew
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra build --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove what the targets made
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
