# Everything a person needs, by name; `make help` prints the list.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench check wheel-test figures clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the versions of constraints.txt (PYTHON=... picks a Python)

# torch comes first and alone, so that a build of that version which this machine provides (CPU
# only, another CUDA) is taken and then kept.
# stlpips-pytorch is installed without dependencies: only its file of weights is read.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
	  "Python %d.%d is too old or too new: 3.11 to 3.13 are supported; " % v[:2] + \
	  "name another one, e.g. make setup PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "setup: torch"
	@$(PY) -m pip install -q -c constraints.txt torch
	@echo "setup: everything else"
	@$(PY) -m pip install -q -c constraints.txt -e '.[dev,all]'
	@$(PY) -m pip install -q -c constraints.txt --no-deps stlpips-pytorch
	@touch $@

demo: setup ## edit the demo images with the embedded cascade, score the edits, draw the grid
	$(PY) run.py

test: setup ## run the fast tests, a process for each core up to four (minutes, no network)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: setup ## run the tests that take minutes each
	$(PY) -m pytest -m slow --timeout 3600

bench: setup ## measure speed and memory, ours and side by side with stock diffusers
	$(PY) experiments/bench/job.py
	$(PY) experiments/bench/stock.py
	$(PY) experiments/bench/tuning.py
	$(PY) experiments/bench/scoring.py

check: setup ## check format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

wheel-test: setup ## build the wheel, install it elsewhere, edit a picture with its command unitune
	.ci/wheel $(PY)

figures: setup ## draw the figures and tables from the records
	$(PY) experiments/figures.py

clean: ## remove outputs (runs, checkpoints), the store of tunings and the caches; .venv stays
	rm -rf outputs store wandb .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	  -type d -prune -exec rm -rf {} +
