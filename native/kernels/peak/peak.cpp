// What a core can do at best: loops of the innermost instructions of the convolutions, on registers, and a plain copy.
// engine/peak.cpp times them. A convolution does the same instructions and more: it loads activations and weights,
// widens, and walks through its epilogue.
//
// The operands are such that every product is 1, so that the sum of all counters is the number of multiply-accumulates
// done, which a test compares with what the table says.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

// Sums that do not wait for each other, as many as the convolutions have.
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kLookUpChains = 8;
#else
constexpr int kLookUpChains = 4;
#endif
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kDotVectors = 4;
#else
constexpr int kDotVectors = 2;
#endif
#if defined(SIGNBIT_BUILD_NEON_DOT)
constexpr uint8_t kOne = 129;  // a load takes 128 away
#else
constexpr uint8_t kOne = 1;
#endif
constexpr int kGroup = 3;  // look-ups before the fields are split
constexpr int kCopyVectors = 4;

// For the compiler x may be anything from here on, so that nothing computed from it is moved out of a loop or shared.
static inline void forget(Bytes& x) {
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_AVX2)
  asm volatile("" : "+v"(x));
#elif defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
  asm volatile("" : "+w"(x));
#else
  asm volatile("" : "+m"(x));
#endif
}

// The same of what a pointer points to.
static inline void forget(const uint8_t*& p) { asm volatile("" : "+r"(p) : : "memory"); }

// Two output channels and four input channels a byte of a look-up.
int64_t peak_look_up_macs() { return int64_t(kLookUpChains) * kGroup * 2 * 4 * kBytes; }

int64_t peak_look_ups(int64_t rounds) {
  alignas(64) uint8_t all[kBytes];
  memset(all, 15, sizeof all);
  const Bytes table = load_table(kPairTable.entry[255]);
  Bytes x[kGroup], low[kLookUpChains], high[kLookUpChains];
  for (int k = 0; k < kGroup; k++) x[k] = load_bytes(all);
  for (int j = 0; j < kLookUpChains; j++) low[j] = high[j] = zero_bytes();
  for (int64_t i = 0; i < rounds; i++)
    for (int j = 0; j < kLookUpChains; j++) {
      for (int k = 0; k < kGroup; k++) forget(x[k]);
      const Bytes sum = add_bytes(add_bytes(look_up(table, x[0]), look_up(table, x[1])), look_up(table, x[2]));
      low[j] = add_bytes(low[j], low_fields(sum));
      high[j] = add_bytes(high[j], high_fields(sum));
    }
  uint16_t counts[kBytes];
  memset(counts, 0, sizeof counts);
  for (int j = 0; j < kLookUpChains; j++) {
    add_widened(counts, low[j]);
    add_widened(counts, high[j]);
  }
  int64_t total = 0;
  for (int i = 0; i < kBytes; i++) total += counts[i];
  return total;
}

int64_t peak_dot_macs() { return int64_t(kDotVectors) * kQ8Channels * 4 * kDots; }

int64_t peak_dots(int64_t rounds) {
  alignas(64) uint8_t ones[kDotVectors * 4 * kDots];
  alignas(64) uint8_t weights[kQ8Channels * kQuadBytes];
  const int8_t quad[4] = {1, 1, 1, 1};
  memset(ones, kOne, sizeof ones);
  for (int j = 0; j < kQ8Channels; j++) pack_quad(quad, weights + j * kQuadBytes);
  const uint8_t *seen = ones, *w = weights;
  forget(seen);
  Quads x[kDotVectors];
  Dots sum[kDotVectors][kQ8Channels];
  for (int v = 0; v < kDotVectors; v++) {
    x[v] = load_quads(seen + 4 * v * kDots);
    for (int j = 0; j < kQ8Channels; j++) sum[v][j] = zero_dots();
  }
  for (int64_t i = 0; i < rounds; i++) {
    forget(w);
    for (int j = 0; j < kQ8Channels; j++)
      for (int v = 0; v < kDotVectors; v++) sum[v][j] = add_dots(sum[v][j], x[v], w + j * kQuadBytes);
  }
  int64_t total = 0;
  for (int v = 0; v < kDotVectors; v++)
    for (int j = 0; j < kQ8Channels; j++) {
      int32_t sums[kDots];
      store_dots(sums, sum[v][j]);
      for (int i = 0; i < kDots; i++) total += sums[i];
    }
  return total;
}

void peak_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kCopyVectors * kBytes) {
    for (int k = 0; k < kCopyVectors; k++) {
      const Bytes x = load_bytes(from + i + size_t(k) * kBytes);
      memcpy(to + i + size_t(k) * kBytes, &x, sizeof x);
    }
    forget(from);  // or the compiler makes a call of memcpy of the loop
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
