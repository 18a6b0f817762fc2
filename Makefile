# Marginal: everything a person or a machine types. `make help` lists it; only Python 3.11+ and make need to be there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PAIR ?= home
AGAINST ?= $(shell git rev-parse --verify --quiet main >/dev/null && echo branch=main || echo ref=HEAD)

TOOLS := .tools
VENV := services/.venv
UV := $(TOOLS)/bin/uv
BIN := $(VENV)/bin
CONFIG := services/pyproject.toml
IMAGES := router model cli
TAG ?= dev
TARS ?= $(TOOLS)/images
SOURCES := services/marginal services/home_pair services/hatch_build.py charts deploy deploy/docker/rootfs deploy/docker/grpc-health tests

.PHONY: help setup run check format lint types imports protos test test-unit test-contract test-integration test-architecture test-charts e2e chart-golden bench pair images image-tars kind-up kind-down clean

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Marginal needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	@echo "Setting up: uv into $(TOOLS), then everything that is locked into $(VENV) (about 300 MB, once)"
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

$(VENV)/.ready: $(UV) services/pyproject.toml services/uv.lock services/hatch_build.py $(wildcard protos/marginal/v1/*.proto)
	@$(UV) sync --quiet --frozen --project services --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

setup: $(VENV)/.ready ## installs everything that is locked into services/.venv

run: setup ## starts the three services and shows the demo (PAIR=home or a pair of the catalogue)
	@$(BIN)/marginal up --demo --pair $(PAIR)

check: lint types imports protos test ## everything CI checks

format: setup ## formats Python and protos
	$(BIN)/ruff format --config $(CONFIG) $(SOURCES)
	$(BIN)/ruff check --config $(CONFIG) --fix $(SOURCES)
	$(BIN)/buf format --write protos --path protos/marginal

lint: setup ## formatting, lint and the lock file, nothing is changed
	$(UV) lock --quiet --check --project services
	$(BIN)/ruff format --config $(CONFIG) --check $(SOURCES)
	$(BIN)/ruff check --config $(CONFIG) $(SOURCES)

types: setup ## mypy --strict
	cd services && .venv/bin/mypy

imports: setup ## the layers hold: imports point inwards
	cd services && .venv/bin/lint-imports

protos: setup ## buf: format, STANDARD lint, and nothing breaks against main
	$(BIN)/buf format --diff --exit-code protos --path protos/marginal
	cd protos && ../$(BIN)/buf lint
	$(BIN)/buf breaking protos --against '.git#$(AGAINST),subdir=protos'

test: setup ## all tests
	$(BIN)/python -m pytest -c tests/pytest.ini tests

test-unit test-contract test-integration test-architecture test-charts: setup ## one kind of test
	$(BIN)/python -m pytest -c tests/pytest.ini tests/$(@:test-%=%)

e2e: setup ## scenarios on the real cluster of KUBECONFIG: installs, rollouts, kills, a tier at zero; see tests/e2e/conftest.py
	$(BIN)/python -m pytest -c tests/e2e/pytest.ini tests/e2e

chart-golden: setup ## renders the chart's examples anew into tests/charts/golden
	cd tests && ../$(BIN)/python -m charts.renew

bench: setup ## measures the router against a direct call, ratios in one run
	$(BIN)/python -m tests.bench

pair: $(UV) ## trains the home pair anew from its seed (half an hour on two cores)
	cd services && UV_PROJECT_ENVIRONMENT=.venv-pair ../$(UV) run --frozen --group home-pair python -m home_pair build

images: ## builds the images with docker: marginal/router, marginal/model and marginal/cli, with TAG=dev
	@for image in $(IMAGES); do docker build --file deploy/docker/Dockerfile --target $$image --tag marginal/$$image:$(TAG) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' services/pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD) .; done

image-tars: $(UV) ## the same images as tars in TARS=.tools/images, for tests where nothing builds containers
	@for image in $(IMAGES); do $(PYTHON) deploy/docker/rootfs --service $$image --tag marginal/$$image:$(TAG) \
	  --output $(TARS)/$$image.tar; done

kind-up: setup images ## a Kubernetes in Docker with Marginal in it; needs docker and kind
	@kind get clusters --quiet | grep --line-regexp marginal >/dev/null \
	  || kind create cluster --config deploy/kind/cluster.yaml --wait 3m
	@kind load docker-image --name marginal $(IMAGES:%=marginal/%:$(TAG))
	@$(BIN)/helm upgrade --install marginal charts/marginal --kube-context kind-marginal --namespace marginal \
	  --create-namespace --values deploy/kind/values.yaml --set image.tag=$(TAG) --wait --timeout 10m

kind-down: ## ends it
	@kind delete cluster --name marginal

clean: ## removes what make built
	rm -rf $(TOOLS) $(VENV) services/.venv-pair .marginal services/home_pair/build
	find . -name __pycache__ -prune -exec rm -rf {} +
