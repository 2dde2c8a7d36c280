# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-gpu mutants check format results bench docs web browser clean

demo: $(READY)
	$(BIN)/bantam demo

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

# Small faults in the source, one at a time: which of them no test notices. A sample, in about half an hour on two cores.
mutants: $(READY)
	$(BIN)/python benchmarks/mutants.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The tables in README.md and docs/, made from the files under results/.
results: $(READY)
	$(BIN)/python benchmarks/tables.py

bench: $(READY)
	$(BIN)/python benchmarks/throughput.py

# The reference of every public name, from the docstrings: open build/api/bantam.html.
docs: $(READY)
	$(BIN)/pdoc bantam -o build/api

# ONNX Runtime Web, for the student in the browser: two files of 14 MB, served locally by `bantam serve`.
ORT := src/bantam/deliver/serve/static/ort
web: $(ORT)/ort.wasm.bundle.min.mjs

$(ORT)/ort.wasm.bundle.min.mjs: Makefile
	npm install --prefix build/web --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts onnxruntime-web@1.30.0
	mkdir -p $(ORT)
	cp build/web/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm $(ORT)
	cp build/web/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs $(ORT)
	touch $@

# What drives a real Chromium in the tests of the page; they are skipped without it.
browser:
	npm install --prefix build/browser --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts playwright-core@1.65.1

# uv installs the pinned versions several times as fast as pip does.
$(READY): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf .venv
