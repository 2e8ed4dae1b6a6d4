# Every target sets up what it needs. The first run installs into .venv; later runs reuse it.
#
#   make book        build the HTML book
#   make test        check everything: style, types, library, chapters, pages
#   make notebooks   the chapters as .ipynb files
#   make lab         open the chapters in JupyterLab
#   make serve       serve the built book on http://localhost:8000
#   make clean       remove what was built (not .venv, not .venv-bench)
#
# Are the checks and the tests worth something? Both put faults in and expect them to be noticed.
#   make mutants-book   a sign, a factor, a sum is lost from every checked equation (minutes)
#   make mutants        a line of vitlib/nn or vitlib/proof is changed (two hours; goes on where it stopped)
#
# How fast is it? Beside timm, Hugging Face's transformers, torchvision and vit-pytorch, which are
# installed into an environment of their own (6 GB).
#   make bench       the table of `vitlib bench step` (a quarter of an hour of two quiet cores)
#
# A smaller, CPU-only PyTorch on Linux:
#   make book TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
TORCH_INDEX ?=
BIN := $(VENV)/bin
BENCH := $(VENV)-bench

# Warnings are errors: a failed cell, an unchecked equation or a broken link is a warning.
JUPYTER_BOOK := $(BIN)/jupyter-book build . -W -n --keep-going --quiet
# Neither a frozen-modules notice nor a version check belongs in a build log.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: book test lint notebooks mutants-book mutants bench lab serve clean
.DEFAULT_GOAL := book

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d found; 3.11 or newer is needed: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@# a kernel on this machine needs no warning that its port is not encrypted
	@mkdir -p $(VENV)/etc/ipython
	@echo 'c.IPKernelApp.log_level = "ERROR"' > $(VENV)/etc/ipython/ipython_kernel_config.py

# One stamp a set of extras, and one for each extra in it: nothing is installed again until the pins
# or the extras change.
comma := ,
$(VENV)/.%-installed: $(BIN)/python pyproject.toml requirements.lock
	@echo "Installing ($*) into $(VENV)"
	@$(BIN)/python -m pip install --quiet --constraint requirements.lock \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[$*]'
	@touch $@ $(patsubst %,$(VENV)/.%-installed,$(subst $(comma), ,$*))

book: $(VENV)/.book-installed
	@$(JUPYTER_BOOK)
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

notebooks: book
	@echo "The notebooks are in $(CURDIR)/_build/notebooks"

# Style and types beside the building of the book, then the library and the pages, then every chapter
# a second time, as a notebook in an empty folder, its outputs compared with those on the page.
test: $(VENV)/.book,train,test-installed
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint book
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp -R _build/nbval "$$folder/chapters" && \
	$(BIN)/python -m pytest -c pyproject.toml --nbval --nbval-current-env --numprocesses 2 \
		--dist loadfile "$$folder/chapters"

lint: $(VENV)/.book,train,test-installed
	$(BIN)/pre-commit run --all-files

mutants-book: $(VENV)/.book-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m vitlib.proof.mutants

mutants: $(VENV)/.book,train,test,mutants-installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

$(BENCH)/.installed: pyproject.toml requirements-bench.lock
	$(PYTHON) -m venv $(BENCH)
	@echo "Installing vitlib and its peers into $(BENCH)"
	@$(BENCH)/bin/python -m pip install --quiet --constraint requirements-bench.lock \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--editable . matplotlib timm torchvision transformers vit-pytorch
	@touch $@

bench: $(BENCH)/.installed
	$(BENCH)/bin/vitlib bench step

# A chapter opens as a notebook on a double click; the setting stays inside .venv.
lab: $(VENV)/.book,lab-installed
	@mkdir -p $(VENV)/etc/jupyter/labconfig
	@$(BIN)/jupytext-config --settings-file $(VENV)/etc/jupyter/labconfig/default_setting_overrides.json \
		set-default-viewer markdown myst
	$(BIN)/jupyter lab --notebook-dir book

serve: book
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean:
	rm -rf _build mutants
