# Each verb works on a fresh clone: it builds the environment that it needs
# under .venv/ first, and again when its requirements change.

PYTHON ?= python3
PIP = -m pip --disable-pip-version-check -qq
PACKAGE = setup.cfg setup.py pyproject.toml \
    $(wildcard simple_websocket/*.pyx simple_websocket/*.pxd simple_websocket/profiles/*.pyx \
        simple_websocket/profiles/*.pxd)

.PHONY: help demo test races sanitize fuzz style bench conformance docs clean coverage mutation soak attack

help:
	@echo "make demo         start the chat on a loopback port (ARGS=... for its options)"
	@echo "make test         run the tests in every mode (ARGS='--mode gevent -- -k close')"
	@echo "make races        many rounds of racing calls in every mode (ROUNDS=1000 SEED=...)"
	@echo "make coverage     run the tests in every mode, and show what they miss"
	@echo "make mutation     change the protocol's code, and see its tests fail"
	@echo "make sanitize     test and fuzz the compiled code under ASan and UBSan"
	@echo "make fuzz         fuzz with libFuzzer for ten minutes (ARGS='--minutes 60')"
	@echo "make style        ruff, and mypy --strict on the package"
	@echo "make bench        run the benchmarks in bench/"
	@echo "make conformance  run the conformance suite in conformance/"
	@echo "make soak         everything at once, on each backend (ARGS='--minutes 20')"
	@echo "make attack       attack each backend, and tell the memory and latency (ARGS=bomb)"
	@echo "make docs         build the documentation, warnings are errors"
	@echo "make clean        remove what these built"
	@echo
	@echo "PYTHON=python3.12 make ... takes another Python; run make clean first."

.venv/%/.done: requirements/%.txt $(PACKAGE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is older than Python 3.10; say PYTHON=..." >&2; exit 1; }
	@echo "== .venv/$*: installing the package and $<"
	@$(PYTHON) -m venv --clear .venv/$*
	@.venv/$*/bin/python $(PIP) install --editable . -r $<
	@touch $@

.venv/full/.done .venv/eventlet-gunicorn/.done .venv/sanitize/.done .venv/fuzz/.done .venv/mutation/.done: requirements/bare.txt

demo: .venv/demo/.done
	@test -f examples/chat/app.py || { echo "there is no examples/chat/app.py to run" >&2; exit 1; }
	@exec .venv/demo/bin/python examples/chat/app.py $(ARGS)

# The peer from npm, where there is node.
.PHONY: node-peer
node-peer:
	@$(PYTHON) tests/support/node.py

test: .venv/bare/.done .venv/full/.done .venv/eventlet-gunicorn/.done node-peer
	@.venv/full/bin/python tests/matrix.py $(ARGS)

ROUNDS ?= 1000
RACES = $(addprefix --mode ,threads threads-bare threads-wsproto gevent gevent-patched \
    gevent-wsproto eventlet eventlet-patched eventlet-wsproto aio aio-wsproto aio-uvloop)
races: .venv/bare/.done .venv/full/.done
	@SWS_RACES=$(ROUNDS) SWS_RACES_SEED=$(SEED) .venv/full/bin/python tests/matrix.py \
	    $(RACES) --bound $$((60 + $(ROUNDS))) $(ARGS) -- -k test_rounds_of

coverage: .venv/coverage/.done .venv/bare/.done .venv/full/.done .venv/eventlet-gunicorn/.done
	@.venv/coverage/bin/python tests/covered.py $(ARGS)

mutation: .venv/mutation/.done
	@.venv/mutation/bin/python tests/mutation.py $(ARGS)

sanitize: .venv/sanitize/.done
	@.venv/sanitize/bin/python tests/sanitize.py $(ARGS)

# atheris, which libFuzzer comes with, has wheels for some Pythons only.
fuzz: .venv/fuzz/.done
	@.venv/fuzz/bin/python -m fuzz $(ARGS)

style: .venv/style/.done
	@echo "== ruff"
	@.venv/style/bin/ruff check .
	@echo "== mypy"
	@.venv/style/bin/mypy

# simple-websocket 1.1 has the same import name, hence an environment of its own.
.venv/bench-1.1/.done: requirements/bench.txt
	@echo "== .venv/bench-1.1: installing simple-websocket 1.1 and $<"
	@$(PYTHON) -m venv --clear .venv/bench-1.1
	@.venv/bench-1.1/bin/python $(PIP) install 'simple-websocket==1.1.*' -r $<
	@touch $@

bench: .venv/bench/.done .venv/bench-1.1/.done
	@echo "== bench"
	@.venv/bench/bin/python -m bench $(ARGS)

conformance: .venv/full/.done
	@test -f conformance/__main__.py || { echo "there is no conformance/__main__.py to run" >&2; exit 1; }
	@echo "== conformance"
	@.venv/full/bin/python -m conformance $(ARGS)

soak: .venv/full/.done
	@echo "== soak"
	@.venv/full/bin/python -m soak $(ARGS)

attack: .venv/full/.done
	@echo "== attack"
	@.venv/full/bin/python -m soak.attack $(ARGS)

docs: .venv/docs/.done
	@test -f docs/conf.py || { echo "there is no docs/conf.py to build" >&2; exit 1; }
	@echo "== sphinx: .build/docs/index.html"
	@.venv/docs/bin/python -m sphinx -W --keep-going -q -b html -d .build/doctrees docs .build/docs

clean:
	rm -rf .venv .build .tox build dist *.egg-info simple_websocket/*.so simple_websocket/profiles/*.so
