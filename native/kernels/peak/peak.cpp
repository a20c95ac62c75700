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

// Sums that do not wait for each other: enough for every instruction to be started without delay, few enough for the
// registers.
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kLookUpChains = 8;
#else
constexpr int kLookUpChains = 4;
#endif
#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kDotChains = 16;
#else
constexpr int kDotChains = 8;
#endif
#if defined(SIGNBIT_BUILD_NEON_DOT)
constexpr uint8_t kOne = 129;  // a load takes 128 away
#else
constexpr uint8_t kOne = 1;
#endif
constexpr int kCopyVectors = 4;

// For the compiler x may be anything from here on: what is computed from it is neither moved out of a loop nor shared.
// (`pin` allows both.)
template <typename Vector>
static inline void forget(Vector& x) {
#if defined(SIGNBIT_EMULATE_AVX512)
  asm volatile("" : "+m"(x));
#elif defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_AVX2)
  asm volatile("" : "+v"(x));
#elif defined(SIGNBIT_BUILD_NEON) || defined(SIGNBIT_BUILD_NEON_DOT)
  asm volatile("" : "+w"(x));
#else
  asm volatile("" : "+m"(x));
#endif
}
#if defined(SIGNBIT_BUILD_NEON)
static inline void forget(Quads& x) {
  for (int k = 0; k < 4; k++) forget(x.channel[k]);
}
static inline void forget(Dots& x) {
  forget(x.low);
  forget(x.high);
}
#endif

// N sums. Not an array, which GCC leaves in memory where its elements are operands of asm.
template <typename Sum, int N>
struct Chains {
  Sum sum;
  Chains<Sum, N - 1> others;
};
template <typename Sum>
struct Chains<Sum, 0> {};

static_assert(kGroupsBeforeWidening >= kPeakExactRounds, "a round is one group of look-ups a chain");

struct Products {
  Dots dots;
};

template <int N>
static inline __attribute__((always_inline)) void clear(Chains<FieldSums, N>& c) {
  if constexpr (N > 0) {
    c.sum = {zero_bytes(), zero_bytes()};
    clear(c.others);
  }
}

// A group of look-ups for each chain.
template <int N>
static inline __attribute__((always_inline)) void look_up_groups(Chains<FieldSums, N>& c, const Bytes& table, Bytes& x,
                                                                 Bytes& y, Bytes& z) {
  if constexpr (N > 0) {
    forget(x);
    forget(y);
    forget(z);
    add_fields(c.sum, add_bytes(add_bytes(look_up(table, x), look_up(table, y)), look_up(table, z)));
    look_up_groups(c.others, table, x, y, z);
  }
}

template <int N>
static inline int64_t total(const Chains<FieldSums, N>& c) {
  int64_t found = 0;
  if constexpr (N > 0) {
    Pairs low, high;
    widen(c.sum, low, high);
    int16_t counts[2 * kBytes];
    store_in_order(counts, low);
    store_in_order(counts + kBytes, high);
    for (int i = 0; i < 2 * kBytes; i++) found += counts[i];
    found += total(c.others);
  }
  return found;
}

// Three look-ups of two output channels and four input channels a byte.
int64_t peak_look_up_macs() { return int64_t(kLookUpChains) * 3 * 2 * 4 * kBytes; }

int64_t peak_look_ups(int64_t rounds) {
  alignas(64) uint8_t all[kBytes];
  memset(all, 15, sizeof all);
  const Bytes table = load_table(kPairTable.entry[255]);
  Bytes x = load_bytes(all), y = x, z = x;
  Chains<FieldSums, kLookUpChains> c;
  clear(c);
  for (int64_t i = 0; i < rounds; i++) look_up_groups(c, table, x, y, z);
  return total(c);
}

template <int N>
static inline __attribute__((always_inline)) void clear(Chains<Products, N>& c) {
  if constexpr (N > 0) {
    c.sum.dots = zero_dots();
    clear(c.others);
  }
}

#if defined(SIGNBIT_DOT_RUNS)
constexpr int kDotSteps = kMaxRun;  // the longest runs are the fastest
#else
constexpr int kDotSteps = 1;
#endif

template <int N>
static inline __attribute__((always_inline)) void add_products(Chains<Products, N>& c, Quads& x, const uint8_t* weights) {
  if constexpr (N > 0) {
    forget(x);
#if defined(SIGNBIT_DOT_RUNS)
    RunSums run = multiply(x, weights);
    for (int k = 1; k < kDotSteps; k++) {
      forget(x);
      run = add_words(run, multiply(x, weights));
    }
    c.sum.dots = add_run(c.sum.dots, run);
#else
    c.sum.dots = add_dots(c.sum.dots, x, weights);
#endif
    forget(c.sum.dots);
    add_products(c.others, x, weights);
  }
}

template <int N>
static inline int64_t total(const Chains<Products, N>& c) {
  int64_t found = 0;
  if constexpr (N > 0) {
    int32_t sums[kDots];
    store_dots(sums, c.sum.dots);
    for (int i = 0; i < kDots; i++) found += sums[i];
    found += total(c.others);
  }
  return found;
}

int64_t peak_dot_macs() { return int64_t(kDotChains) * kDotSteps * 4 * kDots; }

int64_t peak_dots(int64_t rounds) {
  alignas(64) uint8_t ones[4 * kDots], packed[2 * kQ8Channels * kQuadBytes];
  int8_t weights[4 * kQ8Channels];
  int32_t order[2];
  Q8Runs runs;
  memset(ones, kOne, sizeof ones);
  memset(weights, 1, sizeof weights);
  pack_q8(weights, 1, packed, order, &runs);
  const uint8_t* w = packed;
  asm volatile("" : "+r"(w) : : "memory");  // or products of 1 become sums
  Quads x = load_quads(ones);
  Chains<Products, kDotChains> c;
  clear(c);
  for (int64_t i = 0; i < rounds; i++) add_products(c, x, w);
  return total(c);
}

void peak_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kCopyVectors * kBytes) {
    for (int k = 0; k < kCopyVectors; k++) {
      const size_t at = i + size_t(k) * kBytes;
      store_bytes(to + at, load_bytes(from + at));
    }
    asm volatile("" : : : "memory");  // or the compiler makes a call of memcpy of the loop
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
