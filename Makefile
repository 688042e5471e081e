# The commands of cliplab. Each makes .venv when it is missing and reuses it while
# pyproject.toml and constraints.txt are unchanged. More arguments: make run ARGS="02 -p QUICK=True"
# Tests run in two processes, 5 GB together; some of them: make test WORKERS=0 ARGS="-k losses"

.DEFAULT_GOAL := help
.PHONY: help env run test lab notebooks train bench format clean

ifeq ($(OS),Windows_NT)
PYTHON ?= python
PY := .venv/Scripts/python.exe
else
PYTHON ?= $(if $(shell command -v python3.11 2>/dev/null),python3.11,python3)
PY := .venv/bin/python
endif
ARGS ?=
WORKERS ?= 2
STEMS ?= clip vild glip groupvit

help:
	@echo "make run        execute the notebooks and leave a report in runs/      (3 to 6 minutes)"
	@echo "make test       check style, types, code and notebooks                 (10 to 13 minutes)"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  execute the notebooks and save them in place, for contributors"
	@echo "make train      train the shipped checkpoints again                    (some hours)"
	@echo "make bench      run the benchmarks and write benchmarks/RESULTS.md"
	@echo "make format     put the code into the house style"
	@echo "make clean      remove .venv and caches; runs/ stays"
	@echo
	@echo 'The first one installs into .venv (some minutes, 7 GB on Linux). Needs Python 3.11 to 3.13:'
	@echo '  make run PYTHON=/path/to/python3.11          make run ARGS="02 -p QUICK=True"'

env:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "cliplab needs Python 3.11 to 3.13, and '$(PYTHON)' is not; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) tools/make_env.py

run: env
	@$(PY) -m cliplab run $(ARGS)

test: env
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lab: env
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(ARGS)

notebooks: env
	@$(PY) tools/save_notebooks.py $(ARGS)

train: env
	@for stem in $(STEMS); do $(PY) -m cliplab train $$stem $(ARGS) || exit; \
	test $$stem != glip || $(PY) -m cliplab train glip --no-fusion $(ARGS) || exit; done
	$(PY) tools/choose_thresholds.py

bench: env
	@$(PY) tools/bench.py $(ARGS)

format: env
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find cliplab tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
