# Everything here works on a fresh Debian or Ubuntu with Python 3.11+ and make; each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help dev demo model test check format bench paper image docs clean

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

dev: $(READY) ## The project and its tools in .venv

demo: $(READY) ## The proxy, an emulated Knative and traffic on this machine: see what batching saves
	@$(BIN)/python -m bench.demo

model: $(READY) ## A model server on port 9000 to try the proxy with
	@$(BIN)/python -m bench.model_server --port 9000

# Byte code is kept whatever the shell says: else each of some three hundred processes compiles all that it imports.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) ## Every test
	$(BIN)/python -m pytest -n 3 --dist worksteal

check: $(READY) ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## The cost of the proxy beside nginx and a naive batcher, in seven minutes; writes bench/results/ and the README's table
	$(BIN)/python -m bench.overhead

paper: $(READY) ## The paper's comparison, simulated, in some twenty minutes; writes docs/results.md, bench/results/ and the README's table
	$(BIN)/python -m bench.paper

image: ## A container image, with podman, buildah or docker
	deploy/image.sh

docs: $(READY) ## Write the generated references anew
	$(BIN)/python -m docs.references

clean: ## Remove what the other targets made
	rm -rf $(VENV) bench/.build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml deploy/venv.sh
	PYTHON="$(PYTHON)" deploy/venv.sh $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
