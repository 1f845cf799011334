# Two commands do everything: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RUN    := results/runs/demo

export MUJOCO_GL ?= egl

.PHONY: demo test check format slow bench install system-packages clean

demo: install ## A trained world-action model on the embedded suite: success, imagination, videos
	$(BIN)/wamsim eval --policy fastwam --suite tabletop_object --episodes 2 --imagine --out $(RUN)
	$(BIN)/wamsim video $(RUN) --episodes 1
	$(BIN)/wamsim report $(RUN) --episodes all --out $(RUN)-page

test: install ## The test run that CI makes: lint, types, tests without the slow ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile

slow: install ## Minutes to hours: all 130 LIBERO tasks, 200-step equality, soak
	$(BIN)/python -m pytest -m slow

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

include results/reference.mk

bench: install ## Genuine LIBERO and wamsim side by side
	$(BIN)/wamsim bench

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements/simulators.txt | system-packages
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"wamsim needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}; run: make PYTHON=python3.11 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77,<81"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements/simulators.txt
	touch $@

# Software OpenGL, where it is missing and we may install it (root, or sudo without a password).
system-packages:
	@ldconfig -p | grep -q libEGL.so.1 && exit 0; \
	packages=$$(sed -e 's/#.*//' system-packages.txt); \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else \
	  echo "OpenGL is missing. Run: sudo apt-get install" $$packages; exit 0; fi; \
	$$sudo apt-get update -qq && $$sudo apt-get install -y -qq $$packages

clean:
	rm -rf $(VENV) build *.egg-info
