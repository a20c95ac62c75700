# Every target makes its own .venv when there is none. Needs Python >= 3.11, a C++17 compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := build/editable
LIBRARY := src/signbit/runtime/libsignbit.so

.PHONY: demo test test-all test-native test-arm test-x86-baseline test-avx512-emulated test-asan test-tsan test-mutations \
  test-stress fuzz corpus lint bench docs native clean

demo: $(LIBRARY)
	$(BIN)/signbit demo

# The quick tier: everything that takes seconds, native tests first.
test: test-native
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: test-native test-arm test-x86-baseline test-avx512-emulated test-asan test-mutations test-stress test-tsan
	$(NATIVE)/native/tests/test_convolution 10000
	$(BIN)/python -m pytest -n 2

test-native: $(LIBRARY)
	$(BIN)/ctest --test-dir $(NATIVE) --output-on-failure

# The native tests, then whole networks, on CPUs that this machine does not have, emulated by QEMU: ARM cores
# without the 8-bit dot product and with it, x86-64 CPUs without AVX, without AVX2 and without AVX-512. On two cores test-arm
# takes about 2 minutes, test-x86-baseline about 3.5.
test-arm: $(LIBRARY)
	$(call need,qemu-aarch64)
	$(call build_emulated,arm,aarch64-linux-gnu)
	$(call test_emulated,arm,cortex-a53,neon$(comma)scalar)
	$(call test_emulated,arm,max,neon_dot$(comma)neon$(comma)scalar)
	$(call run_emulated,arm,qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu,neon_dot$(comma)neon$(comma)scalar)

test-x86-baseline: $(LIBRARY)
	$(call need,qemu-x86_64)
	$(call build_emulated,x86-emulated,x86-64-emulated)
	$(call test_emulated,x86-emulated,Opteron_G1,scalar)
	$(call test_emulated,x86-emulated,SandyBridge,scalar)
	$(call test_emulated,x86-emulated,Haswell,avx2$(comma)scalar)
	$(call run_emulated,x86-emulated,qemu-x86_64 -cpu Opteron_G1,scalar)
	$(call run_emulated,x86-emulated,qemu-x86_64 -cpu Haswell,avx2$(comma)scalar)

comma := ,
# $(1): a program
need = @command -v $(1) >/dev/null || { echo "$(1) is missing: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
# $(1): folder below build/, $(2): toolchain file
define build_emulated
	$(BIN)/cmake -S native -B build/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DCMAKE_TOOLCHAIN_FILE=$(abspath native/cmake/$(2).cmake) -DSIGNBIT_BUILD_TESTS=ON
	$(BIN)/cmake --build build/$(1)
endef
# $(1): folder, $(2): CPU, $(3): the instruction sets that must be found there
define test_emulated
	$(BIN)/cmake -DSIGNBIT_QEMU_CPU=$(2) -DSIGNBIT_TEST_SETS=$(3) -DSIGNBIT_TEST_CASES=100 build/$(1) >/dev/null
	$(BIN)/ctest --test-dir build/$(1) --output-on-failure
endef
# $(1): folder, $(2): emulator, $(3): the instruction sets to run
define run_emulated
	SIGNBIT_RUN_FILE="$(2) build/$(1)/tests/run_file" SIGNBIT_RUN_SETS=$(3) \
	  $(BIN)/python -m pytest tests/runtime/test_emulated.py
endef

# The engine and its tests once more, alone, in build/NAME with other options.
configure = $(BIN)/cmake -S native -B build/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
  -DSIGNBIT_BUILD_TESTS=ON -DBUILD_SHARED_LIBS=OFF $(2) && $(BIN)/cmake --build build/$(1)

# The avx512 kernels where no CPU has AVX-512, which QEMU does not emulate: their intrinsics in portable code
# (native/simd/avx512_emulated.h). That tests the kernels' logic, not what a CPU makes of the instructions.
test-avx512-emulated: $(LIBRARY)
	$(call configure,avx512-emulated,-DSIGNBIT_EMULATE_AVX512=ON \
	  -DSIGNBIT_TEST_SETS=amx$(comma)avx512_popcnt$(comma)avx512$(comma)avx2$(comma)scalar -DSIGNBIT_TEST_CASES=100)
	$(BIN)/ctest --test-dir build/avx512-emulated --output-on-failure
	$(call run_emulated,avx512-emulated,,amx$(comma)avx512_popcnt$(comma)avx512)

# AddressSanitizer, LeakSanitizer and UBSan over all native tests.
test-asan: $(STAMP)
	$(call configure,asan,-DSIGNBIT_SANITIZE=address$(comma)undefined)
	$(BIN)/ctest --test-dir build/asan --output-on-failure

# ThreadSanitizer over those that start threads.
test-tsan: $(STAMP)
	$(call configure,tsan,-DSIGNBIT_SANITIZE=thread -DSIGNBIT_STRESS_SECONDS=10)
	$(BIN)/ctest --test-dir build/tsan --output-on-failure -R '^(threads|sharing|stress)$$'

# Mutated files under AddressSanitizer; docs/trust.md shows a run.
FILES := 1000000
SEED := 1
test-mutations: $(STAMP)
	$(call configure,asan,-DSIGNBIT_SANITIZE=address$(comma)undefined)
	build/asan/tests/test_mutations $(FILES) $(SEED)

# Sessions opened and closed, and threads that meet in sessions for a minute, at full speed.
test-stress: test-native
	$(NATIVE)/native/tests/test_stress 60 1000

# libFuzzer, which comes with Clang: make fuzz CLANG=clang++-14 SECONDS=600
CLANG := clang++
SECONDS := 60
fuzz: $(STAMP)
	$(call configure,fuzz,-DCMAKE_CXX_COMPILER=$(CLANG) -DSIGNBIT_FUZZ=ON)
	mkdir -p build/fuzz/found
	build/fuzz/fuzz/fuzz_reader -max_len=16384 -timeout=60 -rss_limit_mb=1024 -max_total_time=$(SECONDS) \
	  -artifact_prefix=build/fuzz/ build/fuzz/found native/fuzz/corpus

# The fuzzer's seeds, after a change of native/fuzz/seeds.cpp.
corpus: test-native
	$(NATIVE)/native/tests/write_corpus native/fuzz/corpus

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Photographs for the 8-bit ranges, a folder or .tar: make bench CALIBRATION=PATH
CALIBRATION :=
CALIBRATED = $(if $(CALIBRATION),--calibration $(CALIBRATION))
bench: $(LIBRARY)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt openvino onnx onnxruntime
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.kernels --isa avx2 --output results/kernels-avx2.csv
	$(BIN)/python -m benchmarks.kernels --scaling 2 --output results/kernels-threads.csv
	$(BIN)/python -m benchmarks.networks $(CALIBRATED)
	$(BIN)/python -m benchmarks.networks $(CALIBRATED) --isa avx2 --output results/networks-avx2.csv
	$(BIN)/python -m benchmarks.memory $(CALIBRATED)
	$(BIN)/python -m benchmarks.neon_estimates --csv results/neon-estimates.csv
	$(BIN)/python -m benchmarks.foreign_networks

docs: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check mkdocs-material
	$(BIN)/mkdocs build --strict

native: $(LIBRARY)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt scikit-build-core cmake ninja
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation \
	  -C cmake.define.SIGNBIT_BUILD_TESTS=ON -e '.[train,bench,dev]'
	# Networks of other people for the tests; what it asks for beside PyTorch they do not need.
	$(BIN)/pip install -q --disable-pip-version-check --no-deps pytorchcv==0.0.74
	touch $@

NATIVE_SOURCES := CMakeLists.txt $(shell find native -type f)

# A change of a native source builds again; Python sources are used where they lie.
$(LIBRARY): $(STAMP) $(NATIVE_SOURCES)
	$(BIN)/cmake --build $(NATIVE)
	touch $@

clean:
	rm -rf $(VENV) build dist demo site runs src/signbit/runtime/libsignbit.so
	find . -name __pycache__ -prune -exec rm -rf {} +
