# make        sets up and runs the demo: every table, every figure, and the pages that show them
# make quick  sets up and runs the demo's first experiment, the manifold, in minutes
# make test   sets up and runs all tests
# make bench  sets up and runs the benchmarks, each of which writes its table beside itself
# make gpu    sets up, and proves and measures the project on this machine's GPU, in a quarter of an hour
# make docs   sets up and builds the site of the documentation, build/site/docs/index.html
# make lint   sets up and checks the style and the types of workflow and code
# make clean  removes the virtual environment; results stay
#
# For work on the code, see CONTRIBUTING.md:
# make test-fast             runs the tests that are not slow
# make fuzz                  has hypothesis try configurations, HDF5 files and priors for an hour
# make coverage              runs them in one process and shows the lines that none of them runs
# make reference             makes config/schema.json and the tables of config/README.md anew
# make gpu-wheels            fills build/gpu-wheels for a machine without network
# make links                 asks the web whether the links of the documentation still lead somewhere
# make unchanged BASE=main   makes small results by a commit and by the code here, and compares them

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
BASE ?= main
WHEELS ?= build/gpu-wheels
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo quick help setup test test-fast fuzz coverage reference unchanged bench gpu gpu-wheels docs links lint clean

demo: quick
	@echo "diem: running the workflow of config/config.yaml on $(CORES) cores"
	$(BIN)/snakemake --cores $(CORES)
	@echo "diem: writing results/report.html"
	$(BIN)/snakemake --report results/report.html
	@echo "diem: figures are in results/figures, tables in results/tables, all of it in results/index.html"

quick: $(READY)
	@echo "diem: running the first experiment of config/config.yaml on $(CORES) cores"
	$(BIN)/snakemake --cores $(CORES) quick
	@echo "diem: its figures are in results/figures, its tables in results/tables, both in results/pages"

help:
	@sed -n '/^# make/s/^# //p' $(firstword $(MAKEFILE_LIST))

setup: $(READY)

$(READY): envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diem needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=...")'
	@echo "diem: setting up $(VENV) (some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement envs/requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

test: $(READY)
	@echo "diem: running the tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow and not slurm"

fuzz: export FUZZ_SECONDS := 3600
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --capture=no tests/unit/test_fuzz.py

coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not slurm" --cov --cov-report term-missing:skip-covered

reference: $(READY)
	$(BIN)/python -m diem.config.reference

unchanged: $(READY)
	$(BIN)/python tests/unchanged.py $(BASE)

bench: export OMP_NUM_THREADS := 1
bench: $(READY)
	@echo "diem: running the benchmarks"
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/exact_posteriors.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/estimate.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/own_data.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

gpu-wheels: $(READY)
	$(BIN)/python benchmarks/gpu_wheels.py $(WHEELS)

docs: $(READY)
	$(BIN)/pip install --quiet --requirement envs/docs.txt
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/site
	@echo "diem: the documentation is in build/site/docs/index.html"

# Links within the documentation are checked by `docs`, with every build.
links: $(READY)
	$(BIN)/pip install --quiet --requirement envs/docs.txt
	$(BIN)/sphinx-build -q -W --keep-going -b linkcheck -c docs . build/links

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
