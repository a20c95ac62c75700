#include "select.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "error.h"

namespace signbit {

#if !defined(SIGNBIT_HAS_X86_KERNELS)
const KernelTable* avx2_kernels() { return nullptr; }
const KernelTable* avx512_kernels() { return nullptr; }
#endif
#if !defined(SIGNBIT_HAS_ARM_KERNELS)
const KernelTable* neon_kernels() { return nullptr; }
const KernelTable* neon_dot_kernels() { return nullptr; }
#endif

namespace {

bool cpu_has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

bool cpu_has_avx512() {
#if defined(SIGNBIT_EMULATE_AVX512)
  return cpu_has_avx2();  // which the emulation is compiled for
#elif defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool cpu_has_neon_dot() {
#if defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return false;
#endif
}

std::string names(const std::vector<const KernelTable*>& tables) {
  std::string joined;
  for (const KernelTable* table : tables) joined += (joined.empty() ? "" : ", ") + std::string(table->isa);
  return joined;
}

}  // namespace

std::vector<const KernelTable*> available_kernels() {
  std::vector<const KernelTable*> tables;
  if (cpu_has_avx512() && avx512_kernels()) tables.push_back(avx512_kernels());
  if (cpu_has_avx2() && avx2_kernels()) tables.push_back(avx2_kernels());
  if (cpu_has_neon_dot() && neon_dot_kernels()) tables.push_back(neon_dot_kernels());
  if (neon_kernels()) tables.push_back(neon_kernels());  // part of every 64-bit ARM CPU
  tables.push_back(scalar_kernels());
  return tables;
}

// With pixels as lanes a step costs a vector of positions (binary) or a tile of kTile of them (8-bit), however few are pixels;
// with outputs as lanes it costs each pixel. Counted in instructions a step and channel, on AVX2: binary 1.5 to 2 for each
// vector of 32 positions, against 7 for 64 channels and a pixel; 8-bit 20 for a tile, against 6 for 8 channels and a pixel.
// The same limits serve the other instruction sets: both sides grow with the lanes.
bool lanes_are_outputs(const Geometry& g, bool binary) {
  const int64_t pixels = int64_t(g.batch) * g.height * g.width;
  return g.end <= kTile && pixels <= (binary ? 14 : 24);
}

const KernelTable* select_kernels(const std::string& cap) {
  const std::vector<const KernelTable*> tables = available_kernels();
  if (cap.empty()) return tables.front();
  for (const KernelTable* table : tables)
    if (cap == table->isa) return table;
  const bool known = cap == "avx512" || cap == "avx2" || cap == "neon_dot" || cap == "neon";
  throw UnsupportedError("instruction set \"" + cap + "\" " +
                         (known ? "is not available on this CPU or in this build" : "is not known") +
                         "; available: " + names(tables));
}

}  // namespace signbit
