# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-gpu test-portable mutants faults check format results bench docs web browser clean

demo: $(READY)
	$(BIN)/bantam demo

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

# The numeric tests once more as on a processor without AVX: a tolerance that fits one machine fails here. Runs that
# are killed and resumed, and whole trainings, are left out: without vector instructions a convolution takes its time.
NUMERIC := tests/objectives tests/nets tests/compress tests/measure tests/data/test_augment.py tests/data/test_draws.py \
	tests/data/test_splits.py tests/data/test_images.py tests/train/test_step.py tests/train/test_cohort.py \
	tests/train/test_switches.py tests/train/test_ema.py tests/train/test_optim.py tests/train/test_reestimate.py \
	tests/deliver/export/test_forms.py tests/deliver/package/test_net_code.py
test-portable: $(READY)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 \
		$(BIN)/python -m pytest -n 2 $(NUMERIC) -k "not killed and not published_accuracy"

# Kills, damaged files, hostile input and packages: how many were tried, and how many Bantam held against.
faults: $(READY)
	$(BIN)/python benchmarks/faults.py

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

# The tables in README.md and docs/, and the README's picture, made from the files under results/.
results: $(READY)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/pictures.py

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

# What drives a real Chromium in the tests of the page, and what the example beside an exported ONNX needs; they are
# skipped without it.
browser:
	npm install --prefix build/browser --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts playwright-core@1.65.1 \
		onnxruntime-web@1.30.0 sharp@0.35.5

# uv installs the pinned versions several times as fast as pip does.
$(READY): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf .venv
