# make demo   the main job on bundled data (sets everything up)
# make test   lint, types and all tests (sets everything up)
# make torture the whole fault campaign (about two hours on 2 cores); `make test` runs a sample of it
# make parity the proof on 2,000 real images, where they are to be had (about 4 minutes on 2 cores)
# make bench  every claim on speed at full size, figures into benchmarks/results (about an hour on 2 cores)
# make planted-copies how many planted copies it finds; IMAGES=path/to/cifar10 WEIGHTS=file
# make planted how many planted wrong labels an audit finds; CIFAR=path/to/entry for CIFAR-10 too
# make opened-report how fast pages of `report` open, one of 1,000 classes among them; REPORTS="a.html b.html"
# make check-backbones the proof of every cut: all torchvision models, one of each timm family (half an hour)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture parity bench planted planted-copies opened-report check-backbones lint fix clean

demo: $(VENV)/.installed
	$(BIN)/pipeline demo

# A process a core, at most 8: each of them imports torch.
test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# Every kill point, bit flip, crash state and race at full count; docs/RELIABILITY.md states what it covers.
torture: $(VENV)/.installed-dev
	PIPELINE_TORTURE=1 $(BIN)/python -m pytest tests/torture $(PYTEST_ARGS)

# Bit-for-bit parity on 2,000 real images with the reference recipe; needs ../shared or PIPELINE_SHARED.
parity: $(VENV)/.installed-dev
	PIPELINE_PARITY_IMAGES=2000 PIPELINE_PARITY_EPOCHS=5 $(BIN)/python -m pytest tests/test_shared.py

# 5 % of train labels made wrong in the digits, and in a cache entry of CIFAR-10 read as animals and vehicles.
planted: $(VENV)/.installed-dev
	$(BIN)/python tests/planted.py $(if $(CIFAR),--cifar $(CIFAR))

# Copies planted across the splits of a folder of images (train/<class>, test/<class>), and how many are found.
planted-copies: $(VENV)/.installed-dev
	$(BIN)/python tests/planted_copies.py $(IMAGES) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(PLANTED_ARGS)

# Size, time to open and requests of pages of `report`, and of one with 1,000 classes; needs an installed Chromium.
opened-report: $(VENV)/.installed-dev
	$(BIN)/python tests/opened_report.py $(REPORTS)

# The original last layer on features read back from a real extract gives the original's logits; a line a model.
check-backbones: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[timm]'
	$(BIN)/python tests/proof.py

# A script a claim, each runnable alone: `python benchmarks/extract.py --help`. docs/PERFORMANCE.md explains the figures.
bench: $(VENV)/.installed-dev
	for script in $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)); do \
	    $(BIN)/python $$script --json benchmarks/results/$$(basename $$script .py).json $(BENCH_ARGS) || exit 1; \
	done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

# Installing again only when the requirements change keeps the second run quick.
$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
