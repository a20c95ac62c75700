#include "select.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(SIGNBIT_HAS_AMX_KERNELS) && !defined(SIGNBIT_EMULATE_AVX512)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "error.h"

namespace signbit {

#if !defined(SIGNBIT_HAS_X86_KERNELS)
const KernelTable* avx2_kernels() { return nullptr; }
const KernelTable* avx512_kernels() { return nullptr; }
const KernelTable* avx512_popcnt_kernels() { return nullptr; }
#endif
#if !defined(SIGNBIT_HAS_AMX_KERNELS)
const KernelTable* amx_kernels() { return nullptr; }
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

bool cpu_has_avx512_popcnt() {
#if defined(SIGNBIT_EMULATE_AVX512)
  return cpu_has_avx512();
#elif defined(__x86_64__)
  return cpu_has_avx512() && __builtin_cpu_supports("avx512vpopcntdq");
#else
  return false;
#endif
}

// Whether the CPU has 8-bit matrix tiles and the system lets this process use them: Linux wants to be asked, once.
bool cpu_has_amx() {
#if defined(SIGNBIT_EMULATE_AVX512)
  return cpu_has_avx512_popcnt();
#elif defined(SIGNBIT_HAS_AMX_KERNELS)
  constexpr int kTiles = 1 << 24, kInt8 = 1 << 25;           // of leaf 7's edx
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl's, of <asm/prctl.h>
  static const bool found = [] {
    unsigned a, b, c, d;
    if (!cpu_has_avx512_popcnt() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kTiles | kInt8)) != (kTiles | kInt8)) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return found;
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
  if (cpu_has_amx() && amx_kernels()) tables.push_back(amx_kernels());
  if (cpu_has_avx512_popcnt() && avx512_popcnt_kernels()) tables.push_back(avx512_popcnt_kernels());
  if (cpu_has_avx512() && avx512_kernels()) tables.push_back(avx512_kernels());
  if (cpu_has_avx2() && avx2_kernels()) tables.push_back(avx2_kernels());
  if (cpu_has_neon_dot() && neon_dot_kernels()) tables.push_back(neon_dot_kernels());
  if (neon_kernels()) tables.push_back(neon_kernels());  // part of every 64-bit ARM CPU
  tables.push_back(scalar_kernels());
  return tables;
}

// A step's cost in instructions, either way, on vectors of this instruction set. With pixels as lanes it is paid for each
// vector of positions, however few of them are pixels, and each output channel; with outputs as lanes for each pixel and block
// of channels, however few of them are outputs. The instructions are those of AVX2 (look_up.cpp and dot.cpp, outputs.cpp):
//   binary: a pair of channels, a vector: 1 look-up, 2/3 addition, 1 split; and to find its table, 3 for up to four vectors.
//           a block: 7 (a load, two fields, two look-ups, two additions), and 4 to find its table.
//   8-bit:  a channel, a vector of four bytes a lane: 2.5. A block of four such vectors: 24, and 4 to spread the pixel.
bool lanes_are_outputs(const KernelTable& kernels, const Geometry& g, int outputs, bool binary) {
  if (g.end > size_t(kTile)) return false;
  const auto parts = [](int64_t count, int64_t size) { return (count + size - 1) / size; };
  const int64_t pixels = int64_t(g.batch) * g.height * g.width;
  if (binary) {
    const int64_t vectors = parts(int64_t(g.end), kernels.binary_vector), pairs = parts(outputs, kBinaryChannels) * kBinaryChannels / 2;
    const double lanes_pixels = double(pairs) * (8.0 / 3.0 * double(vectors) + 3.0 * double(parts(vectors, 4)));
    return double(pixels * parts(outputs, kernels.binary_outputs)) * 11.0 < lanes_pixels;
  }
  const int64_t vectors = kTile / (kernels.q8_outputs / 4), channels = parts(outputs, kQ8Channels) * kQ8Channels;
  return double(pixels * parts(outputs, kernels.q8_outputs)) * 28.0 < double(channels * vectors) * 2.5;
}

// In instructions. Look-ups: of four channels for a pair, two thirds of an addition and a split, for each vector of positions, few of which
// may be pixels; and two fifths more, for they are less even than words. Words: two and a half for each, and around them, of
// eight output channels, seven where counts become bits, and six more where they become sums; gathering a pixel's words once. Matrix
// tiles are faster than look-ups where words win by little.
bool words_pay(const Geometry& g, int taps, int inputs, int outputs, bool bits, bool tiles) {
  const auto parts = [](int64_t count, int64_t size) { return (count + size - 1) / size; };
  if (taps > 49) return false;  // each kind of pixel at the image's edges has sums of its own
  const int64_t pixels = int64_t(g.batch) * g.height * g.width, steps = taps * parts(inputs, 64);
  const double look_ups = double(parts(int64_t(g.end), 64)) * double(parts(outputs, 2) * taps * parts(inputs, 4)) * 3.75;
  const double words = double(pixels) * (double(parts(outputs, 8)) * (2.5 * double(steps) + (bits ? 7.0 : 13.0)) + 3.0 * double(steps));
  return words * (tiles ? 1.15 : 1.0) < look_ups;
}

// A tile is as costly with few rows: look-ups are not.
bool tiles_pay(int inputs, int outputs) { return inputs >= 32 && outputs >= 16; }

// Steps gathered for a tile of positions stay in the second-level cache.
bool q8_tiles_pay(int steps, int outputs) { return outputs >= 16 && steps >= 8 && steps <= 512; }

// Pixels as lanes: a digit is two instructions a vector of 32-bit lanes, of bytes one, and one more to fetch its offset. Outputs as
// lanes: a tap is four instructions for each of eight bits, and three more; where taps pass together, three for each bit of all of
// them, and four.
bool shift_lanes_are_outputs(const KernelTable& kernels, const Geometry& g, int outputs, int64_t taps, int64_t digits, bool bytes) {
  if (g.end > size_t(kTile)) return false;
  const int64_t pixels = int64_t(g.batch) * g.height * g.width, lanes = kernels.shift_outputs;
  const int64_t blocks = (outputs + lanes - 1) / lanes, vectors = (int64_t(g.end) + lanes - 1) / lanes;
  const int64_t tap = kernels.shift_index_bits == 1 ? 35 : 24 / kernels.shift_index_bits + 4;
  return pixels * blocks * taps * tap < digits * (1 + (bytes ? vectors : 2 * vectors));
}

const KernelTable* select_kernels(const std::string& cap) {
  const std::vector<const KernelTable*> tables = available_kernels();
  if (cap.empty()) return tables.front();
  for (const KernelTable* table : tables)
    if (cap == table->isa) return table;
  const bool known = cap == "amx" || cap == "avx512_popcnt" || cap == "avx512" || cap == "avx2" || cap == "neon_dot" || cap == "neon";
  throw UnsupportedError("instruction set \"" + cap + "\" " +
                         (known ? "is not available on this CPU or in this build" : "is not known") +
                         "; available: " + names(tables));
}

}  // namespace signbit
