# `make train` and `make test` need only Python >= 3.11: they create .venv if it is missing or out of date.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: train test test-all lesson mutants bench dashboard

train: $(INSTALLED)
	$(BIN)/python src/train.py

# `test` skips tests marked slow (new interpreters, several processes); `test-all` runs them.
test test-all: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(BIN)/mypy & types=$$!; \
	$(BIN)/pytest -n 2 --dist worksteal $(if $(filter test,$@),-m "not slow"); tests=$$?; \
	wait $$types && exit $$tests

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
	$(BIN)/python -m pip install --editable '.[dev]' --constraint constraints.txt
	touch $@
