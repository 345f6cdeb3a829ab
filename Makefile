# The two main commands are `make demo` and `make test`. Each installs what it needs, once. For Linux x86-64.
SHELL := /bin/bash
VENV := .venv
S3 := .venv-s3
BIN := $(VENV)/bin
REQUIREMENTS := infra/requirements
# Test processes side by side. Tests wait about half of their time: 4 keep two cores busy, 2 leave room for other work.
JOBS ?= 4
DEVICE ?= $(if $(wildcard $(VENV)/.installed-gpu),gpu,cpu)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Packages are compiled when they are installed. Else, with PYTHONDONTWRITEBYTECODE, every process compiles for tens of seconds.
UV_INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --no-deps
# Each step prints its name and, if it fails, what to do.
STEP = step() { local name="$$1"; shift; echo "==> $$name" >&2; "$$@" >&2 || { \
  echo "reneg: the step '$$name' failed (see above). You need Python 3.11 or 3.12 with pip and venv, a package index and" >&2; \
  echo "14 GB of free disk. Then run the same command again: finished steps are kept." >&2; exit 1; }; }

.PHONY: demo test check install install-gpu install-dev lock format clean
.DEFAULT_GOAL := demo

demo: install  ## curate the demo corpus, from the source to the report
	@$(BIN)/reneg demo

test: install-dev  ## every test, the fast ones first; JOBS groups of tests run side by side
	@$(BIN)/python -m compileall -q flows tasks infra tests benchmarks
	@$(BIN)/python -m pytest -n $(JOBS) --durations 15

check: install-dev  ## lint, types, formatting, layout of the code, audit of the requirements
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.house
	@$(BIN)/python $(REQUIREMENTS)/audit.py

install: $(VENV)/.installed-$(DEVICE)

install-gpu:  ## install with vLLM's CUDA build
	@$(MAKE) --no-print-directory install DEVICE=gpu

install-dev: $(VENV)/.installed-dev $(S3)/.installed

$(BIN)/uv:
	@$(STEP); \
	step "checking the machine" bash infra/check_machine.sh "$(PYTHON)" && \
	step "creating $(VENV)" "$(PYTHON)" -m venv $(VENV) && \
	step "installing uv" $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"

$(VENV)/.installed-$(DEVICE): $(REQUIREMENTS)/$(DEVICE).txt pyproject.toml | $(BIN)/uv
	@$(STEP); \
	step "installing dependencies ($(DEVICE); 7 GB, once)" $(UV_INSTALL) --python $(BIN)/python --require-hashes -r $(REQUIREMENTS)/$(DEVICE).txt && \
	step "installing reneg" $(UV_INSTALL) --python $(BIN)/python --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(REQUIREMENTS)/dev.txt | $(VENV)/.installed-$(DEVICE)
	@$(STEP); \
	step "installing the packages of tests and checks" $(UV_INSTALL) --python $(BIN)/python --require-hashes -r $(REQUIREMENTS)/dev.txt
	@touch $@

$(S3)/.installed: $(REQUIREMENTS)/s3.txt $(REQUIREMENTS)/cluster.txt | $(BIN)/uv
	@$(STEP); \
	step "creating $(S3)" "$(PYTHON)" -m venv $(S3) && \
	step "installing the S3 servers of the tests" $(UV_INSTALL) --python $(S3)/bin/python --require-hashes -r $(REQUIREMENTS)/s3.txt && \
	step "installing the packages for metrics of Ray's nodes" $(UV_INSTALL) --python $(BIN)/python --target $(S3)/ray --require-hashes -r $(REQUIREMENTS)/cluster.txt
	@touch $@

lock: | $(BIN)/uv  ## resolve the locked requirements again
	@cd $(REQUIREMENTS) && for device in cpu gpu; do \
	  ../../$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --override overrides.txt --extra $$device --extra setup ../../pyproject.toml -o $$device.txt || exit 1; done
	@cd $(REQUIREMENTS) && for name in dev s3; do \
	  ../../$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    $$(test $$name = dev && echo -c cpu.txt) $$name.in -o $$name.txt || exit 1; done
	@cd $(REQUIREMENTS) && ../../$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	    --python-version 3.11 --custom-compile-command "make lock" -c cpu.txt cluster.in -o cluster.txt \
	    $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' cpu.txt | sort -u)  # images install it in addition to cpu or gpu

format: install-dev  ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## remove the environments; keep stores and models
	@rm -rf $(VENV) $(S3)
