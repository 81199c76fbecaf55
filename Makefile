# Everything a person or CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_SERVERY := $(BIN)/servery
# Tests that run side by side; each has a Servery, a NATS and a Postgres of its own. More than two keep two cores busier,
# and have services wait for processor and disk for seconds.
JOBS ?= 2

.PHONY: help install demo down compose-down test unit contract integration resilience e2e bench lint format types imports schemas compatibility dashboards check clean

help: ## List the targets
	@grep -hE '^[a-z0-9_-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Create .venv with everything Servery and its tests need

$(VENV)/.installed: pyproject.toml uv.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml deploy/*/pyproject.toml)
	@echo "==> Installing into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@$(BIN)/uv sync --quiet --locked --all-packages
	@touch $@

demo: install ## Start Servery, deploy a real model, score it (make down stops it)
	@$(BIN)/python examples/demo.py

down: ## Stop what make demo or servery up started
	@if [ -x $(RUN_SERVERY) ]; then $(RUN_SERVERY) down; else echo "Nothing is installed, so nothing runs."; fi

test: install ## Run all tests (they bring their own NATS and Postgres)
	@# What takes longest is first: it must not be what the last one to end still has to do.
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	  tests/end_to_end tests/resilience tests/integration tests/contract tests/unit

unit: install ## Tests without any I/O
	@$(BIN)/python -m pytest tests/unit

contract: install ## Message schemas and the catalogue, checked against the code
	@$(BIN)/python -m pytest tests/contract

integration: install ## One service at a time against real NATS and Postgres
	@$(BIN)/python -m pytest tests/integration

resilience: install ## Processes killed, frozen, out of memory: who notices, and that nothing runs twice
	@$(BIN)/python -m pytest tests/resilience

e2e: install ## The whole system through `servery up`
	@$(BIN)/python -m pytest tests/end_to_end

compose-down: ## Take a compose installation down, its replicas included (ARGS=-v: its data, too)
	@deploy/docker/down.sh $(ARGS)

bench: install ## Speed, scale and overload beside other servers; ONLY=part,part or QUICK=1 (docs/benchmarks.md)
	@$(BIN)/python -m tests.benchmarks

lint: install ## Style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install ## Rewrite to the style
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

types: install ## Strict type check of all sources
	@$(BIN)/basedpyright

imports: install ## Who may import whom
	@$(BIN)/lint-imports

schemas: install ## Regenerate message schemas, docs/events.md and docs/asyncapi.yaml
	@$(BIN)/python -m servery_common.schemas

dashboards: install ## Regenerate Grafana's dashboards
	@$(BIN)/python -m deploy.grafana.boards

compatibility: install ## Regenerate docs/compatibility.md from docs/compatibility.yaml
	@$(BIN)/python -m tests.contract.compatibility

check: lint types imports ## All static checks

clean: down ## Stop everything and remove the environment and the data directory
	@# As root the database may lie outside, below the id of the stack.
	@id=$$(sed -nE 's/.*"stack_id": "([0-9a-f]{16})".*/\1/p' .servery/secrets.json 2>/dev/null); \
	  if [ -n "$$id" ] && [ -d "/var/lib/servery/$$id" ]; then rm -rf "/var/lib/servery/$$id"; fi
	@rm -rf $(VENV) .servery
