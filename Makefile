# make demo   everything end to end on small rendered clips, ending with runs/demo/report.html
# make test   the test suite, in as many processes as there are cores (4 at most)
# make lint   ruff and mypy
# Each makes .venv when it is missing and installs requirements.lock and this project; a second call installs nothing.
# PYTHON=/path/to/python chooses the interpreter for a new .venv (3.11, 3.12 or 3.13).

SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin/python
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
KEY := $(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(KEY)

.PHONY: help demo test lint install clean-venv
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

demo: $(STAMP)
	$(RUN) -m vlm_crash demo

# Compiled tests and modules are kept, whatever the shell says: each of many processes would compile them again.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m mypy

install: $(STAMP)

# An existing .venv is kept when its Python is supported (a stopped install goes on where it was), else made anew.
$(STAMP):
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "vlm_crash needs Python 3.11, 3.12 or 3.13, and '$(or $(PYTHON),python3)' is not one: install one," \
			"then say which with 'make <target> PYTHON=/path/to/python3.11'" >&2; exit 2; }
	@$(RUN) -c '$(SUPPORTED)' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

clean-venv:
	rm -rf $(VENV)
