# `make demo` and `make test` do all the set-up by themselves, in a virtual environment of their own.
PYTHON ?= python3.11
VENV := .venv
SEEDS ?= 1
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Nothing but the core, on numpy 2, which the devkits in the environment above cannot live with.
NUMPY2 := $(VENV)/numpy2
NUMPY2_STAMP := $(NUMPY2)/installed

.PHONY: demo test test-numpy2 check bench kill-matrix mutants clean

demo: $(STAMP)
	$(BIN)/brickyard demo --out demo --seeds $(SEEDS)

# One thread a process: workers that each start a thread pool of all cores only wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# A corpus is read, verified and streamed on numpy 2 as on numpy 1. Stores that break in all ways are left to `test`,
# and so are simulated worlds.
test-numpy2: $(NUMPY2_STAMP)
	OMP_NUM_THREADS=1 $(NUMPY2)/bin/python -m pytest $(addprefix tests/shards/test_, \
	  scene.py codecs.py containers.py corpus.py formats.py images.py layers.py order.py selection.py stream.py \
	  verify.py second_reader.py export.py) -k 'not simulated'

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The plug is pulled at every operation on files of builds, layers, repairs ...; the suite does so at a sample of them.
kill-matrix: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kill_matrix

# All mutated files of every reader; the suite reads one in eight of them.
mutants: $(STAMP)
	BRICKYARD_MUTANTS=all OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --timeout 7200 tests/ingest -k 'damaged or mutated'

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

$(STAMP): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint infra/constraints.txt --editable '.[ingest,simulate,train,cluster,rerun,dev]'
	touch $@

$(NUMPY2_STAMP): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(NUMPY2)
	$(NUMPY2)/bin/python -m pip install --quiet --upgrade pip
	grep -vE '^(numpy|pyarrow)==' infra/constraints.txt > $(NUMPY2)/constraints.txt
	$(NUMPY2)/bin/python -m pip install --quiet --constraint $(NUMPY2)/constraints.txt --editable . \
	  numpy==2.4.6 pyarrow==26.0.1 pytest pytest-timeout hypothesis duckdb scipy
	touch $@

clean:
	rm -rf $(VENV) demo
