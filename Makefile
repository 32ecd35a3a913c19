# Needs python3 (3.11+) and make; everything else goes into .venv.
#   make demo                 the whole method on 8x8 digits, in minutes; open runs/demo/report/index.html
#   make demo RECIPE=smoke    the same in seconds, to see that it works
#   make test                 all tests
#   make TORCH=default ...    a CUDA machine: newest torch and libraries instead of the tested CPU set

PYTHON ?= python3
TORCH ?= cpu
RECIPE ?= digits
VENV ?= .venv
# Tests are single-threaded processes: one a core.
JOBS ?= auto

CONSTRAINTS := $(if $(filter default,$(TORCH)),,-c constraints/cpu.txt)
READY := $(VENV)/.ready-$(TORCH)

.PHONY: demo test lint toy clean

demo: $(READY)
	$(VENV)/bin/msd demo $(RECIPE) --out runs/demo

test: $(READY)
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/deptry src

toy: $(READY)
	$(VENV)/bin/python examples/toy2d.py

$(READY): pyproject.toml constraints/cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "msd needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(CONSTRAINTS) -e ".[dev,datasets]"
	touch $@

clean:
	rm -rf $(VENV) runs dist
