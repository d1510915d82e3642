.DEFAULT_GOAL := all
PYTHON ?= python3
REV ?= main
CPU ?= avx2
KILLS ?= 200
VENV = test -x .venv/bin/python || $(PYTHON) -m venv .venv
# errors alone: pip warns of every index that lacks a package
INSTALL = python -m pip install --quiet --quiet --disable-pip-version-check
# one package of requirements.lock
INSTALL_LOCKED = sed -n '/^$(1)==/,/[^\\]$$/p' requirements.lock > .venv/$(1).lock && $(INSTALL) -r .venv/$(1).lock
PYTEST = python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(HUNG)
# a test that hangs shows where after 15 minutes, and fails
HUNG = --max-worker-restart 0 -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true
# the CPU instructions that oneDNN and MKL, torch's libraries for matrix products, may use
ISA_default = ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2
ISA_avx2 = ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
ISA_avx512 = ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI MKL_ENABLE_INSTRUCTIONS=AVX512
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: all costs report test test-long test-cpu faults fuzz cluster remotes lint bench lock clean help

all: costs .venv/installed  ## create the environment, run the pipeline, print the comparison
	@.ci/mend
	dvc repro
	@head -n 24 metrics/report.md
	@echo 'The whole report: metrics/report.md, metrics/summary.png'

costs:
	@echo 'The default run takes about 6 minutes on 2 cores; later runs compute only what changed.'
	@echo 'It needs 3 GB of memory, 2 GB of disk, and 2 GB more for .venv (6 GB where torch comes with CUDA).'

report: .venv/installed  ## run the pipeline, write report.md with the changes since REV (main); fails if the gate fails
	@.ci/mend
	test -z "$$(dvc remote list)" || dvc pull --run-cache --allow-missing || echo "the DVC remote cannot be read" >&2
	dvc repro
	python -m stages.report --rev '$(REV)' --gate > report.md

test: .venv/installed-dev lint  ## check the style and run the tests
	$(PYTEST)

test-long: .venv/installed-dev  ## run the tests that `make test` leaves out, further cases of what it tests
	$(PYTEST) -m long

test-cpu: .venv/installed-dev  ## run the tests as on an older CPU: make test-cpu CPU=avx2 (or avx512, or default: SSE4)
	ATEN_CPU_CAPABILITY=$(CPU) $(ISA_$(CPU)) $(PYTEST)

faults: .venv/installed-dev  ## kill runs, fill disks, break inputs (hours); prints the tables of docs/reliability.md
	python -m pytest --numprocesses 2 --faults $(KILLS) tests/faults tests/test_interrupted_training.py

fuzz: .venv/installed-dev  ## 1,000 made-up tables for prepare, 50 for all stages, 1,000 for predict
	python -m pytest --hypothesis-profile long tests/test_any_table.py

cluster: .venv/installed-dev  ## run the stages on a Ray cluster of two nodes on this machine, and kill one of them
	$(INSTALL) -r requirements-ray.txt -c requirements.lock
	python -m pytest -m 'long or not long' tests/compute/test_cluster.py

remotes: .venv/installed-dev  ## push, pull, import and predict, with SSH (as root) and S3 servers on this machine
	$(INSTALL) dvc-s3==3.3.0 dvc-ssh==4.3.0 'moto[server]==5.2.5'
	python -m pytest tests/test_remotes.py

lint: .venv/installed-dev  ## check style and formatting
	ruff check .
	ruff format --check .

bench: .venv/installed-dev  ## compare the pipeline with a plain script (over an hour); writes benchmarks/RESULTS.md
	python -m benchmarks.bench

lock:  ## after a change of requirements*.txt: write requirements.lock; UPGRADE=--upgrade: with the newest versions
	$(VENV)
	$(call INSTALL_LOCKED,uv)
	.ci/lock $(UPGRADE)

clean:  ## remove the environment, exports and all of .cache: downloads, what interrupted runs left, the gauntlet's files; keep data, models and DVC's cache
	rm -rf .venv .cache .pytest_cache .ruff_cache models/merged models/published models/onnx
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

.venv/installed: requirements.txt requirements.lock requirements-cpu.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "expected Python 3.11 to 3.13, found " + sys.version.split()[0] + "; name another: make PYTHON=python3.13")'
	$(VENV)
	@$(call INSTALL_LOCKED,pip)  # before 26.1 pip takes no hashes from a file of constraints
	@$(INSTALL) --no-deps -r requirements-cpu.lock 2> /dev/null || echo 'torch: no build for CPUs at hand; taking the default one'
	$(INSTALL) -r requirements.txt -c requirements.lock
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-serve.txt
	$(INSTALL) -r requirements-dev.txt -c requirements.lock
	touch $@
