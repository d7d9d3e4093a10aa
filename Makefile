# `make train` and `make test` need nothing but Python >= 3.11: they make .venv when it is missing or out of date.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: train test mutants bench dashboard

train: $(INSTALLED)
	$(BIN)/python src/train.py

test: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

# Every term of the mathematics broken once; each must make a test fail.
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
