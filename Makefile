# `make train` and `make test` need only Python >= 3.11: they create .venv if it is missing or out of date.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: train test test-all test-hydra14 floors lesson mutants bench dashboard

train: $(INSTALLED)
	$(BIN)/python src/train.py

# `test` skips tests marked slow (new interpreters, several processes); `test-all` runs them.
test test-all: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(BIN)/mypy & types=$$!; \
	$(BIN)/pytest -n 2 --dist worksteal $(if $(filter test,$@),-m "not slow"); tests=$$?; \
	wait $$types && exit $$tests

# The most Hydra-dependent tests with the release candidate of Hydra 1.4, in a folder that precedes the installed one.
HYDRA14 := $(CURDIR)/$(VENV)/hydra14
test-hydra14: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(HYDRA14) 'hydra-core>=1.4.0rc3,<1.5' \
	  'omegaconf>=2.4.1rc1,<2.5' 'hydra-joblib-launcher>=1.4.0rc3,<1.5' 'hydra-optuna-sweeper>=1.4.0rc3,<1.5' 'optuna>=4.9,<6'
	PYTHONPATH=$(HYDRA14) $(BIN)/pytest -n 2 --dist worksteal -m "not slow" tests/cli/test_search.py tests/cli/test_sweep.py \
	  tests/cli/test_options.py tests/test_api.py tests/test_config.py tests/inspection/test_allowlist.py

# Resolve the lowest versions that pyproject.toml allows. CONTRIBUTING.md says how to test with them.
floors: $(INSTALLED)
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --extra parallel --extra search --extra parquet \
	  --extra export pyproject.toml > $(VENV)/floors.txt

# Interactive page of the lesson's network, opened in the browser.
lesson: $(INSTALLED)
	$(BIN)/python src/explain.py checkpoint=docs/lesson.ckpt output=docs/lesson.html open=true

# Mutation testing: a test must fail for every fault in tests/mutants.csv. An hour.
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py

bench: $(INSTALLED)
	$(BIN)/python benchmarks/epoch.py

dashboard: $(INSTALLED)
	$(BIN)/tensorboard --logdir outputs

$(INSTALLED): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --editable . --group dev --constraint constraints.txt
	touch $@
