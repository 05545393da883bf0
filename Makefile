# Everything from a fresh machine: git, make and Python 3.11 or later are enough.
.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-hostile bench lint image clean setup browser engines types-linux types-darwin types-win32 types-beside
BIN := .venv/bin
# Each of many processes would compile all modules anew.
export PYTHONDONTWRITEBYTECODE =
TYPED := __main__ asyncwire bridge bundle bundling first handover hosttools line queries wire

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 20

demo: setup  ## set up, and ask the local model about real text
	@$(BIN)/python scripts/demo.py

test: setup browser lint  ## set up, lint, and run all tests
	$(BIN)/pytest -q -n 4 --dist loadgroup -m "not local_model and not hostile"
	$(BIN)/pytest -q -m local_model tests/integration/test_ask.py tests/integration/test_local_model.py

test-hostile: setup browser engines  ## the long attacks and faults: up to half an hour
	$(BIN)/pytest -q -n 2 --dist loadgroup -m hostile tests/integration

test-unit: .venv/installed  ## the tests that need no Docker
	$(BIN)/pytest -q tests/unit

bench: image  ## what texts of any size, sub-calls and child RLMs take
	$(BIN)/python benchmarks/any_size.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/subcalls.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/tree.py

lint: .venv/installed  ## ruff, and mypy for Linux, macOS and Windows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 types-linux types-darwin types-win32 types-beside

types-linux:
	$(BIN)/mypy

types-darwin types-win32: types-%:
	$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$*

types-beside:
	$(BIN)/mypy --cache-dir .mypy_cache/beside scripts/demo.py scripts/rooms.py scripts/providers.py scripts/examples.py
	MYPYPATH=kernel_image $(BIN)/mypy --cache-dir .mypy_cache/kernel --follow-imports=silent $(TYPED:%=-m rlm_runtime.%)

image: .venv/installed  ## build the kernel image, if it is not there
	@$(BIN)/rlm image build

# Docker Engine, kernel image and the local model's weights: what is there is left as it is.
setup: .venv/installed
	@$(BIN)/rlm doctor --fix --local-model

browser:
	@scripts/chromium.sh

engines:
	@scripts/engines.sh

.venv/installed: pyproject.toml constraints.txt scripts/bootstrap.sh
	@scripts/bootstrap.sh
	@touch $@

clean:  ## remove .venv and caches; Docker's images and the fetched weights stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
