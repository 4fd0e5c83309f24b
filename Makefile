# The Python for .venv: 3.10, 3.11 or 3.12, say `make setup PYTHON=python3.12`.
PYTHON ?= python3
# Passed on by test, unit, golden (to pytest), demo (to `train`) and bench.
ARGS ?=
# Test processes; each imports torch, so this is not "one per core".
WORKERS ?= 2
# Those of image-test: one of them mostly waits for downloads.
IMAGE_WORKERS ?= 3

# The image's name and the file it is built from; BUILD goes to `docker buildx build`: BUILD=--push
IMAGE ?= tunecask:latest
DOCKERFILE ?= Dockerfile.ubuntu2204
BUILD ?=
# compose.yaml's service for `make shell`: train has the GPUs.
SERVICE ?= train-cpu
# Keeps the engine that image-test has started: KEEP=yes
KEEP ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.ready

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# What these point to is not what requirements.lock says.
unexport PYTHONPATH PYTHONHOME

# Shell conditions and messages used below
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
VERSION := import sys; print("%d.%d" % sys.version_info[:2])

.PHONY: help setup test unit demo bench bench-plan bench-accuracy lint format lock golden docs pictures image shell image-test clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'
	@printf '%s\n' '' 'Options: PYTHON=python3.12 (setup), ARGS="..." (test, unit, golden, demo), WORKERS=4 (test, aml-test), IMAGE=, DOCKERFILE=, BUILD= (image)'

setup: ## Create .venv and install the locked dependencies (quick when nothing changed)
ifneq ($(origin PYTHON),file)
	@if [ -e $(STAMP) ] && [ "$$($(BIN)/python -c '$(VERSION)')" != "$$($(PYTHON) -c '$(VERSION)')" ]; then \
		echo "==> $(PYTHON) is not the Python of $(VENV): setting up anew"; rm -f $(STAMP); fi
endif
	@$(MAKE) --no-print-directory --silent $(STAMP)
	@echo "==> ready: $(BIN)/train, or: source $(BIN)/activate"

# Written last, so that an interrupted set-up is taken up again. uv, which is much faster here, does not read
# pip's settings: it is told pip's index and certificates, unless it has its own.
$(STAMP): pyproject.toml requirements.lock requirements-torch.txt
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 && $(BIN)/python -c '$(SUPPORTED)' \
		&& { [ "$(origin PYTHON)" = file ] \
			|| [ "$$($(BIN)/python -c '$(VERSION)')" = "$$($(PYTHON) -c '$(VERSION)')" ]; } \
		|| { $(PYTHON) -c '$(SUPPORTED)' 2>/dev/null \
				|| { echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing);" \
					"Python 3.10, 3.11 or 3.12 is needed: make setup PYTHON=python3.12" >&2; exit 1; }; \
			echo "==> [1/4] creating $(VENV) with $$($(PYTHON) --version)"; \
			rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "==> [2/4] installing torch (200 MB for a CPU build, 3 GB for a CUDA build)"
	@$(PIP) install -r requirements-torch.txt setuptools uv -c requirements.lock
	@echo "==> [3/4] installing $$(grep -c == requirements.lock) locked packages"
	@of_pip() { $(PIP) config list | sed -n "s/^[^ ]*\.$$1='\(.*\)'/\1/p" | tail -n 1; }; \
		index=$${UV_DEFAULT_INDEX:-$$(of_pip index-url)}; cert=$${SSL_CERT_FILE:-$$(of_pip cert)}; \
		[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; \
		[ -z "$$cert" ] || export SSL_CERT_FILE="$$cert"; \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --compile-bytecode \
			-r requirements.lock
	@echo "==> [4/4] installing tunecask itself, editable"
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test: lint ## Lint, check types, run all tests with coverage (ARGS="-k topology" picks tests)
	@echo "==> tests, all, with coverage"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term $(ARGS)

unit: $(STAMP) ## Run only the unit tests: seconds, no model
	@$(BIN)/python -m pytest tests/unit $(ARGS)

demo: $(STAMP) ## Fine-tune, evaluate and quantize the embedded model, offline on a CPU
	@echo "==> train sft --then eval,quantize $(ARGS)"
	@$(BIN)/train sft --then eval,quantize $(ARGS)

bench: $(STAMP) ## Time training beside TRL, LitGPT and torchtune (ARGS="--tasks sft-lora-bf16 --rounds 1")
	@$(BIN)/python -m scripts.bench $(ARGS)

bench-plan: $(STAMP) ## Hold planned memory against measured peaks, on a CPU
	@$(BIN)/python -m scripts.bench_plan $(ARGS)

bench-accuracy: $(STAMP) ## Tune, quantize each way and hold the accuracy lost to its bounds (an hour)
	@$(BIN)/python -m scripts.bench_accuracy $(ARGS)

lint: $(STAMP) ## Check style, format and types
	@echo "==> ruff check, ruff format --check, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Reformat the code and fix what ruff can fix
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

lock: $(STAMP) ## Resolve requirements.lock again (ARGS=--upgrade for newer releases)
	@echo "==> resolving pyproject.toml with its extras azure and dev"
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --extra azure --extra dev \
		--custom-compile-command "make lock" --output-file requirements.lock $(ARGS) pyproject.toml

golden: $(STAMP) ## Write the golden files again; review them as a diff
	@TUNECASK_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/unit $(ARGS)

docs: $(STAMP) ## Make the site of docs/ in build/site, strictly
	@$(BIN)/python -m mkdocs build --quiet --config-file scripts/docs/mkdocs.yml $(ARGS)
	@echo "==> build/site/index.html"

pictures: $(STAMP) ## Make README's pictures from a real run; needs Chromium (minutes)
	@$(BIN)/python -m scripts.docs.pictures $(ARGS)

DOCKER_BUILD = docker buildx build --file $(DOCKERFILE) $(if $(WHEELS),--build-context wheels=$(WHEELS))
LABELS = --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	--build-arg REVISION=$$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown) \
	--build-arg SOURCE=$$(git config --get remote.origin.url 2>/dev/null | grep -E '^https://[^@]+$$' || echo unknown)

image: ## Build the container image; print its layers, write its packages to dist/tunecask.cdx.json
	@$(DOCKER_BUILD) --tag $(IMAGE) $(LABELS) $(BUILD) .
	@docker history --format 'table {{.Size}}\t{{.CreatedBy}}' $(IMAGE)
	@$(DOCKER_BUILD) --quiet --target sbom --output dist . >/dev/null
	@echo "==> $(IMAGE): $$(docker image inspect --format '{{.Size}}' $(IMAGE) | numfmt --to=si)B;" \
		"$$(grep -c '"purl"' dist/tunecask.cdx.json) packages in dist/tunecask.cdx.json"

shell: ## Open a shell in the image (SERVICE=train has the GPUs)
	@docker compose run --rm --entrypoint "as-owner /workspace/outputs bash" $(SERVICE)

image-test: $(STAMP) ## Build and run the image for real, on the Docker that is there or on one of its own
	@[ -n "$(KEEP)" ] || trap 'tests/image/engine.sh down' EXIT; \
		exports=$$(tests/image/engine.sh up) && eval "$$exports" \
		&& TUNECASK_IMAGE_TESTS=1 $(BIN)/python -m pytest -n $(IMAGE_WORKERS) --dist loadfile tests/image $(ARGS)

# docs/azure-ml.md. ARGS: options of the job, then a command as `train` takes it.
AML := $(BIN)/python -m scripts.aml
# The blob emulator of aml-test, from npm
AZURITE := $(or $(TUNECASK_AZURITE),$(HOME)/.cache/tunecask-tests/azurite/node_modules/.bin/azurite-blob)
.PHONY: aml-validate aml-rehearse aml-env aml-data aml-compute aml-submit aml-logs aml-cancel aml-resume aml-register aml-download aml-deploy aml-test

aml-validate: $(STAMP) ## Check a job for Azure ML offline, print its YAML (ARGS="--compute gpus sft")
	@$(AML) validate $(ARGS)

aml-rehearse: $(STAMP) ## Run a job on this machine, as Azure ML would (ARGS="--compute x --nodes 2 sft")
	@$(AML) rehearse $(ARGS)

aml-env: $(STAMP) ## Create the environment on Azure ML, from this folder or a pushed image (ARGS="--image ...")
	@$(AML) env $(ARGS)

aml-data: $(STAMP) ## Upload prepared rows as a data asset (ARGS="--name rows FOLDER"); unchanged ones stay
	@$(AML) data $(ARGS)

aml-compute: $(STAMP) ## Create the cluster if it is not there (ARGS="--tier low-priority")
	@$(AML) compute $(ARGS)

aml-submit: $(STAMP) ## Send a `train` command as a job (ARGS="sft --max-steps 2"); --dry-run prints its YAML
	@$(AML) submit $(ARGS)

aml-logs: $(STAMP) ## Follow the last job to its end
	@$(AML) logs $(ARGS)

aml-cancel: $(STAMP) ## End the last job; its checkpoints are kept
	@$(AML) cancel $(ARGS)

aml-resume: $(STAMP) ## Start the last job again, from its newest checkpoint
	@$(AML) resume $(ARGS)

aml-register: $(STAMP) ## Register the last job's model (ARGS="--part quantized/8da4w" the copy alone)
	@$(AML) register $(ARGS)

aml-download: $(STAMP) ## Download the last registered model, or the last job's run folder (ARGS=--run)
	@$(AML) download $(ARGS)

aml-deploy: $(STAMP) ## Deploy it to an endpoint (ARGS="--size ..."); --local FOLDER serves it on this machine
	@$(AML) deploy $(ARGS)

$(AZURITE):
	@npm install --silent --no-audit --no-fund --prefix $(@D)/../.. azurite@3.35.0

aml-test: $(STAMP) $(AZURITE) ## Test these against a stand-in for Azure ML, with a blob emulator from npm
	@TUNECASK_AZURITE=$(AZURITE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/aml $(ARGS)

clean: ## Remove .venv, caches and builds, but no outputs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +
