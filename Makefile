# make demo: everything from nothing to depth and a point cloud.   make test: every check.
# PYTHON chooses the interpreter (3.10 to 3.13); PIP_ARGS is handed to pip.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

.PHONY: help demo finetune test slow lint conformance benchmark performance networks soak \
  finetune-check bundled-check pretrain docs clean

help:
	@echo 'make demo [BAG=path | VIDEO=file HFOV_DEG=65]   run the node on a recording, show what came out'
	@echo '          [MODEL=name | MODEL=./folder]         ... with another model than the bundled one'
	@echo 'make finetune BAG=path [FINETUNE_ARGS=...]      learn from a recording; the model is finetuned/best'
	@echo 'make test                                       install the rest and run every check'
	@echo 'make slow                                       the tests that take too long for make test'
	@echo 'make conformance DIR=folder [ONLY=pattern]      compare the networks with the official numbers'
	@echo 'make benchmark [MODELS=names]                   measure engines, frames and the node: ten minutes'
	@echo 'make performance                                write docs/performance.md from what was measured'
	@echo 'make networks                                   measure every network, write docs/networks.md'
	@echo 'make docs                                       write docs/node.md and config/depth_node.yaml from the code'
	@echo 'make soak [CHECKS=names]                        storms of images, kills, signals, cycles: twenty minutes'
	@echo 'make finetune-check [CHECKS=names]              the figures that fine-tuning has to reach: hours'
	@echo 'make bundled-check [MODEL=./folder BUNDLED_ARGS=...]  judge the bundled model, write docs/bundled-model.md'
	@echo 'make pretrain                                   train the bundled model again (hours)'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 10) <= v <= (3, 13) else f"Python 3.10 to 3.13 is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# A stamp is touched when a requirement file is installed, so that a second run starts at once.
$(VENV)/run.stamp: requirements/run.txt | $(BIN)/python
	@echo 'Installing ROS 2 and the engines into $(VENV) (about 300 MB, once) ...'
	$(PIP) -r requirements/run.txt
	@touch $@

$(VENV)/train.stamp: requirements/train.txt $(VENV)/run.stamp
	@echo 'Installing torch for training and export into $(VENV) (once) ...'
	$(PIP) -r requirements/train.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/train.stamp
	$(PIP) -r requirements/test.txt
	@touch $@

demo: $(VENV)/run.stamp
	@$(BIN)/python -m depth_node.tools.demo \
	  $(if $(BAG),--recording '$(BAG)') $(if $(VIDEO),--video '$(VIDEO)') \
	  $(if $(HFOV_DEG),--hfov-deg $(HFOV_DEG)) $(if $(MODEL),--model '$(MODEL)') $(DEMO_ARGS)

test: lint
	$(BIN)/python -m pytest -m 'not slow and not gpu'

# larger networks, longer checks, a million images: on top of make test, before a release
slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m 'slow and not gpu'

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

conformance: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.conformance $(DIR) $(if $(ONLY),--only '$(ONLY)')

# nothing else may run meanwhile; with MODELS only those are timed, and no page is written
benchmark: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.benchmark $(MODELS)

performance: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.benchmark page

# every network on every engine; most of an hour, and memory for a network of four gigabytes
networks: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.benchmark networks

# 100,000 images, 200 signals, 1000 lifecycle cycles, minutes over DDS; CHECKS picks some of them
soak: $(VENV)/test.stamp
	PYTHONPATH=.:test $(BIN)/python -m soak $(CHECKS)

# hours on two cores; LIVINGROOM names the real recording; CHECKS picks some of them
# BAG may name several recordings of one camera
finetune: $(VENV)/train.stamp
	@$(BIN)/python -m depth_node.tools.finetune $(BAG) $(FINETUNE_ARGS)

finetune-check: $(VENV)/test.stamp
	PYTHONPATH=.:test LIVINGROOM='$(LIVINGROOM)' $(BIN)/python -m finetune_check $(CHECKS)

pretrain: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.pretrain $(PRETRAIN_ARGS)

# nothing else may run meanwhile; recordings with depth are named by --recordings in BUNDLED_ARGS
bundled-check: $(VENV)/train.stamp
	$(BIN)/python -m depth_node.tools.benchmark bundled $(if $(MODEL),'$(MODEL)') $(BUNDLED_ARGS)

docs: $(VENV)/run.stamp
	$(BIN)/python -m depth_node.ros.reference

clean:
	rm -rf $(VENV) build install log out
