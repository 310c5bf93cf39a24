# Every target makes the virtual environment by itself. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODELS := $(VENV)/.models
COUNT ?= 10
MINUTES ?= 1
OUTAGE ?= 20

.PHONY: install models demo dev test check soak browser bench lock format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]' --constraint requirements.lock
	@touch $@

models: $(MODELS) ## What CLIP models and Ray need, beside the platform

$(MODELS): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[clip,jina,ray]' --constraint requirements.lock
	@touch $@

demo: install ## Demo catalogue through the whole pipeline, with example searches
	@$(BIN)/labeling demo

dev: install ## Dagster UI at http://127.0.0.1:3000
	@$(BIN)/labeling dev

test: models ## All tests but those that take minutes
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

check: models ## Lint, types and definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@home=$$(mktemp -d) && echo '$(BIN)/dagster definitions validate -w workspace.yaml' && \
		DAGSTER_HOME=$$home PYTHONWARNINGS=ignore $(BIN)/dagster definitions validate -w workspace.yaml; \
		code=$$?; rm -rf $$home; exit $$code

# Full size: make soak COUNT=20 MINUTES=5 OUTAGE=60
soak: install ## The daemon at work: COUNT kills, 3*COUNT days of backfill, MINUTES of changes, services down for OUTAGE seconds; backup and restore
	@LABELING_TEST_SOAK_COUNT=$(COUNT) LABELING_TEST_SOAK_MINUTES=$(MINUTES) \
		LABELING_TEST_SOAK_OUTAGE_SECONDS=$(OUTAGE) $(BIN)/pytest -m soak --timeout 3600 --capture no --numprocesses 3
	@$(BIN)/pytest labeling_assets_tests/integration/test_backup_and_restore.py

browser: install ## The Dagster UI in headless Chromium, which must be installed
	@$(BIN)/pytest -m browser --timeout 600

bench: models ## All benchmarks, or one: make bench NAME=label_stage
	@$(BIN)/python -m benchmarks $(NAME)

lock: install ## Resolve the dependencies anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --no-emit-index-url --no-header --no-annotate \
		--upgrade --output-file requirements.lock

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
