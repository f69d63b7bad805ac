# make setup   virtual environment in .venv with all that is needed (re-used when it is there)
# make demo    train and test on the generated default benchmark, with a picture
# make test    the tests
# make lint    ruff and mypy
# make test-wheel  the wheel, installed away from the checkout
# make test-fork   import, config and toy-run tests on the maintained fork, in .venv-fork
# make clean   remove both environments

PYTHON ?= python3
# another build or version of torch: make setup TORCH=torch
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# processes of the tests; each takes one thread
JOBS ?= 2
# a file stays in one process; those that take longest first (tests/conftest.py)
XDIST := -n $(JOBS) --dist loadfile --no-loadscope-reorder

VENV := .venv
FORK := .venv-fork
REQUIREMENTS := Makefile setup.py pyproject.toml $(wildcard requirements/*.txt)
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
# two cores: threads of their own for each process only get in the way
export OMP_NUM_THREADS ?= 2

.PHONY: setup setup-fork demo test test-wheel test-fork lint format clean

setup: $(VENV)/.ready
setup-fork: $(FORK)/.ready

# before anything is made: packages fail on an older Python with errors that do not say so
CHECK_PYTHON = import sys; v = sys.version_info; v >= (3, 10) or sys.exit("error: mmfss needs \
	Python 3.10 or newer, $(PYTHON) is %d.%d; remedy: make PYTHON=python3.12 ..." % v[:2])

# torch first, so that nothing fetches another one; sam2 without its torchvision, and built with
# the torch that is there; byte-compiled on all cores at the end, where pip uses one
define install
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install -q --no-compile $(TORCH) "setuptools>=64" wheel
	$(1)/bin/pip install -q --no-compile $(2)
	SAM2_BUILD_CUDA=0 $(1)/bin/pip install -q --no-deps --no-build-isolation -r requirements/sam2.txt
	$(1)/bin/pip install -q --no-deps --no-build-isolation -e .
	$(1)/bin/python -m compileall -q -j 0 -x '/tests?/|torch/testing/' $(1)/lib
	touch $(1)/.ready
endef

$(VENV)/.ready: $(REQUIREMENTS)
	$(call install,$(VENV),$(foreach f,runtime tests webui serve sam1 geo openvino export,-r requirements/$(f).txt))

$(FORK)/.ready: $(REQUIREMENTS)
	$(call install,$(FORK),$(foreach f,fork tests,-r requirements/$(f).txt))

# one thread: the operators are small, and so the figures are those of the README's table
demo: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python tools/demo.py

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q $(XDIST) $(PYTEST_ARGS)

test-wheel: setup
	$(VENV)/bin/python -m pytest -q .ci/test_wheel.py $(PYTEST_ARGS)

test-fork: setup-fork
	OMP_NUM_THREADS=1 $(FORK)/bin/python -m pytest -q $(XDIST) -m smoke $(PYTEST_ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) $(FORK)
