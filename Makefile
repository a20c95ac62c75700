# Every target makes its own .venv when there is none. Needs Python >= 3.11, a C++17 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := build/editable
LIBRARY := src/signbit/runtime/libsignbit.so

.PHONY: demo test test-all test-native lint bench docs native clean

demo: $(LIBRARY)
	$(BIN)/signbit demo

# The quick tier: everything that takes seconds, native tests first.
test: test-native
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: test-native
	$(BIN)/python -m pytest -n 2

test-native: $(LIBRARY)
	$(BIN)/ctest --test-dir $(NATIVE) --output-on-failure

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(LIBRARY)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt openvino onnx onnxruntime
	$(BIN)/python benchmarks/networks.py

docs: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check mkdocs-material
	$(BIN)/mkdocs build --strict

native: $(LIBRARY)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt scikit-build-core cmake ninja
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation \
	  -C cmake.define.SIGNBIT_BUILD_TESTS=ON -e '.[train,dev]'
	touch $@

NATIVE_SOURCES := CMakeLists.txt $(shell find native -type f)

# A change of a native source builds again; Python sources are used where they lie.
$(LIBRARY): $(STAMP) $(NATIVE_SOURCES)
	$(BIN)/cmake --build $(NATIVE)
	touch $@

clean:
	rm -rf $(VENV) build dist demo site runs src/signbit/runtime/libsignbit.so
	find . -name __pycache__ -prune -exec rm -rf {} +
