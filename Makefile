# `make run`: from a fresh clone to a published model, on this machine.  `make test`: the tests.  `make help`: all of it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin/python
GOAL := $(MAKECMDGOALS)
REQUIREMENTS := requirements.txt trainer/requirements.txt twin/requirements.txt
MODELS := .cache/models/smollm2-135m .cache/models/tiny

# What a change does not wait for, because all of it would take hours: stories told at each call or for each fault, and whole chains on a
# machine of their own. Everything else that is slow or needs root, a change waits for.
NIGHT := tests/faults/test_faults_of_the_box.py tests/faults/test_faults_of_aws.py tests/faults/test_crash_account.py tests/faults/test_crash_chain.py \
  tests/faults/test_crash_verbs.py tests/faults/test_housekeeping.py tests/system/test_chains.py tests/system/test_build_on_box.py \
  tests/unit/trainer/record/test_trackers_for_real.py
# Python compiles what it imports; pip would compile gigabytes that nobody does.
PIP := $(VENV) -m pip install --quiet --no-compile
# In the order of the files: those that take longest stand in the middle.
PYTEST := $(VENV) -m pytest -n 4 --dist loadfile --no-loadscope-reorder
PROGRAMS := .ci/run .ci/odd-clone .ci/release-notes $(wildcard twin/box/*.sh twin/box/bin/*.sh twin/box/machine/*.sh twin/box/machine/bin/* tests/system/*.sh)

# A busy machine answers late.
export PIP_DEFAULT_TIMEOUT := 120
# What a shell says to other Python programs, and where pip is to put theirs, is not meant for these.
export PYTHONUTF8 := 1
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE PYTHONDONTWRITEBYTECODE PIP_USER PIP_TARGET PIP_PREFIX

.PHONY: help setup run test test-all test-system test-change test-agent test-aws ground pictures script-coverage lock pin smoke check clean clean-machine
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/installed .venv/tests $(MODELS) ## the virtual environment and the two small models

# What trains, first: a model can be made with it while the rest is installed.
.venv/trainer: trainer/requirements.txt
	@case "$$PWD" in *:*) echo "error: the path $$PWD holds a colon, which ends a folder in PATH; clone into another folder"; exit 1;; \
	  *'$$'*) echo "error: the path $$PWD holds a dollar sign, which setuptools takes for a variable; clone into another folder"; exit 1;; esac
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(GOAL)"; exit 1; }
	@test -x $(VENV) || $(PYTHON) -m venv .venv
	@# Plain torch on Linux brings gigabytes of CUDA, which a machine without a GPU has no use for.
	@$(VENV) -c 'import torch' 2>/dev/null || { \
	  torch=$$(grep '^torch==' trainer/requirements.txt); \
	  if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	    $(VENV) -c 'import urllib.request as u; u.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=30)' 2>/dev/null; \
	  then echo "installing $$torch for CPUs, about 200 MB"; $(PIP) "$$torch" --index-url https://download.pytorch.org/whl/cpu; \
	  else echo "installing $$torch from PyPI: on Linux up to 3 GB with its CUDA packages, elsewhere about 100 MB"; $(PIP) "$$torch"; fi; }
	@echo "installing what trains with it, about 500 MB"
	@$(PIP) -r trainer/requirements.txt
	@touch $@

.venv/installed: $(REQUIREMENTS) | .venv/trainer
	@echo "installing the rest, about 300 MB"
	@$(PIP) $(REQUIREMENTS:%=-r %)
	@touch $@

.venv/tests: tests/requirements.txt | .venv/installed
	@echo "installing what tests need, about 100 MB"
	@$(PIP) -r tests/requirements.txt
	@touch $@

.cache/models/smollm2-135m: | .venv/trainer
	@echo "getting SmolLM2-135M-Instruct, about 90 MB, and converting it: half a minute, once"
	@$(VENV) -m twin.models smollm2 $@

.cache/models/tiny: | .venv/trainer
	@$(VENV) -m twin.models tiny $@

run: ## the main job: a small model fine-tuned, scored and published on the twin
	@$(MAKE) --silent --no-print-directory -j2 GOAL=run .venv/installed .cache/models/smollm2-135m
	@$(VENV) -m invoke twin.start up deploy train publish down report -- cloud=twin experiment=quickstart

smoke: .venv/installed .cache/models/tiny ## the same chain on a tiny model, in under a minute
	@$(VENV) -m invoke smoke -- cloud=twin

test: setup ## the tests that any machine runs in minutes: all units and one whole chain
	@$(PYTEST) -m "not slow and not system and not gpu and not aws" $(tests)

test-all: setup ## all tests that need no root: these, and the long stories (tests=FILE for some)
	@$(PYTEST) -m "not system and not gpu and not aws" -rs --durations=20 $(tests)

test-system: ground ## the tests that need root, docker, loop devices, sshd or a browser (tests=FILE for some)
	@$(PYTEST) -m system -rs --durations=20 $(tests)

test-change: ground ## what a change waits for beside `make test`: the slow tests and those that need root, without the longest
	@$(PYTEST) -m "(slow or system) and not gpu and not aws" $(NIGHT:%=--ignore=%) -rs --durations=20

test-agent: setup ## hold another agent's program to the same rules as the twin's own (TWIN_AGENT=/path/to/amazon-ssm-agent; as root)
	@TWIN_AGENT="$(TWIN_AGENT)" $(PYTEST) tests/unit/twin/aws/ssm/test_run_command.py tests/unit/twin/box/test_real_agent.py -rs

test-aws: setup ## the whole way on a real account, for money: AWS_LIMIT=5 HUB_TOKEN=FILE, see docs/AWS.md
	@$(VENV) -m pytest -m aws -rs -s tests/aws

ground: setup # what system tests need; as root on Debian it is installed
	@# RUNLEVEL=1: no service is started by its installation; the tests start their own, on 127.0.0.1.
	@packages=$$($(VENV) -m twin.box.machine.prerequisites); \
	  if [ -n "$$packages" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$packages"; export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive; \
	    apt-get update --quiet=2; for package in $$packages; do \
	      apt-get install --quiet=2 --yes --no-install-recommends $$package >/dev/null || \
	      echo "$$package could not be installed: tests that need it are skipped, each with its reason"; done; fi
	@$(PIP) -r tests/system/requirements.txt

pictures: ground ## the pictures of README, of a real `make run`
	@$(VENV) tests/support/pictures.py

script-coverage: setup ## which lines of the box's scripts run in the tests of the chain, on both grades
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  TWIN_TRACE=$$folder $(VENV) -m pytest tests/integration/test_chain.py tests/integration/test_recovery.py tests/unit/remote/scripts/test_script_ends.py tests/unit/remote/build/test_build.py tests/unit/remote/scripts/test_evaluate_script.py \
	    tests/unit/remote/aws/test_volume_system.py tests/system/test_chains.py; \
	  $(VENV) tests/support/bash_coverage.py $$folder

lock: setup ## pin every package of the laptop and of the trainer's image, with its hashes
	@for list in requirements.txt trainer/requirements.txt; do \
	  $(VENV) -m twin.box.machine.requirements_lock $$list >locked.new && mv locked.new $$(dirname $$list)/locked.txt || exit 1; done

pin: ## write torch's hashes and the base image's digest down, as the workflow supply-chain does (Linux, with docker)
	@$(PYTHON) -m twin.box.machine.requirements_lock trainer/requirements.txt torch >torch.new && mv torch.new trainer/torch.txt || { rm -f torch.new; exit 1; }
	@base=$$(sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' docker/Dockerfile) && \
	  digest=$$(docker buildx imagetools inspect "$$base" --format '{{.Manifest.Digest}}') && \
	  case "$$digest" in sha256:*) ;; *) echo "error: docker tells no digest of $$base: $$digest"; exit 1;; esac && \
	  sed -i "s|^ARG BASE=.*|ARG BASE=$$base@$$digest|" docker/Dockerfile

check: setup ## formatting, lint and types
	@$(VENV) -m ruff format --check .
	@$(VENV) -m ruff check .
	@$(VENV) -m mypy
	@.venv/bin/shellcheck $(PROGRAMS)
	@.venv/bin/actionlint -shellcheck .venv/bin/shellcheck
	@.venv/bin/zizmor --offline --quiet --no-progress .github

clean: ## stop the twin and remove what it kept; the environment and the models stay
	@test ! -x $(VENV) || $(VENV) -m invoke twin.stop -- cloud=twin
	@rm -rf .twin

clean-machine: ## remove what boxes of the machine grade are made of, and what is left of any that were killed
	@test ! -x $(VENV) || $(VENV) -c 'from twin import world; world.reap()'
	@rm -rf .cache/machine
