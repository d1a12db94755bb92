# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONWARNINGS ?= ignore

help:
	@echo "make demo       make the demo organisation, run every notebook, print the path of reports/index.html"
	@echo "                (CRM=salesforce, pipedrive or agentbox: through a stand-in of that CRM, over HTTP)"
	@echo "make test       run the whole test suite (set WORKBENCH_REAL_DATA=FOLDER for the real-data tests)"
	@echo "make bench      measure speed and memory; prints a table of ratios"
	@echo "make soak       run the long proofs"
	@echo "make worlds     hold every claim about scores against worlds whose truth is known (ARGS=\"FILE.toml --seeds 5\" are passed on)"
	@echo "make notebooks  run the committed notebooks again on the small demo and keep their outputs"
	@echo "make lab        open JupyterLab at notebooks/00_start_here.ipynb (ARGS=\"--no-browser --port 8890\" are passed on)"
	@echo "make lint       ruff, types, shape rules, lines of Python in workbench/"

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the locked packages into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import lightgbm' 2>/dev/null || { echo "LightGBM needs the OpenMP library: apt-get install libgomp1"; exit 1; }
	@touch $@

demo: .venv/installed
ifdef CRM
	@$(BIN)/python -m tests.crm_demo $(CRM)
else
	@$(BIN)/workbench demo --size small --if-missing
	@WORKBENCH_SOURCE=demo $(BIN)/workbench run all
endif

test: .venv/installed
	@command -v chromium >/dev/null || echo "No chromium, so the browser tests will be skipped: apt-get install chromium"
	$(BIN)/python -m pytest -n 2

bench: .venv/installed
	$(BIN)/python -m tests.bench

soak: .venv/installed
	$(BIN)/python -m pytest -m soak

worlds: .venv/installed
	$(BIN)/python -m tests.worlds $(ARGS)

notebooks: .venv/installed
	$(BIN)/python -m tests.check_notebooks --write

lab: .venv/installed
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > .venv/share/jupyter/lab/settings/overrides.json
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy workbench
	$(BIN)/python lint/shape.py

.PHONY: help demo test bench soak worlds notebooks lab lint
.DEFAULT_GOAL := help
