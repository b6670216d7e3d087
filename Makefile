# One folder for the environment; uv when it is there, else pip. PIP_FIND_LINKS reaches both.
VENV ?= .venv
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null)
LINKS := $(foreach link,$(PIP_FIND_LINKS),--find-links $(link))
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run stop test test-heavy check format bench bench-serve bench-extra bench-memory clean

help: ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY) ## make the virtual environment and install everything

$(READY): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes the first time"
ifdef UV
	test -x $(PY) || uv venv --quiet --python 3.11 $(VENV)
	uv pip install --quiet --python $(PY) $(LINKS) -c constraints.txt -e '.[samples,dev]'
else
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[samples,dev]'
endif
	touch $(READY)

run: install ## from 4,000 product reviews to a model in service
	$(VENV)/bin/raypath run text_classification

stop: ## stop the endpoint, Ray and MLflow of this folder
	test ! -x $(VENV)/bin/raypath || $(VENV)/bin/raypath down

test: install ## every test
	$(PY) -m pytest

test-heavy: install ## what `make test` leaves out, as root: nodes that die, networks, the image; an hour
	$(PY) -m pytest -m heavy $(HEAVY)

check: install ## style, types, import arrows
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: install ## put the code in order
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: bench-extra ## fine-tuning against the Hugging Face Trainer; BENCH='--help' tells what else
	$(PY) -m tests.bench.training $(BENCH)

bench-serve: bench-extra ## serving against Ray Serve's pipeline, MLflow and LitServe; BENCH='--help' tells what else
	$(PY) -m tests.bench.serving $(BENCH)

bench-extra: install
ifdef UV
	uv pip install --quiet --python $(PY) $(LINKS) -c constraints.txt -e '.[bench]'
else
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
endif

bench-memory: install ## memory and speed of read, split and preprocess
	$(PY) -m tests.bench.memory 100000

clean: stop ## remove the environment and what runs have left
	rm -rf $(VENV) .raypath .mypy_cache .ruff_cache .pytest_cache
