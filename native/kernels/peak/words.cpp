// Words compared and counted as fast as the CPU does it: operands that are there.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kPixels = 6;
constexpr int64_t kPairMacs = 2 * 8 * kBytes;

int64_t peak_word_macs() { return kPixels * kPairMacs; }

// The steps of `words.cpp`, on words that differ in all bits: the sum of two of them is 0.
int64_t peak_words(int64_t rounds) {
  Bytes word = all_bytes(0xFF), sum = zero_bytes();
  // A register that the compiler takes for another one each time, so that no comparison stands for two.
  const auto pixel = []() __attribute__((always_inline)) {
    Bytes x = zero_bytes();
#if !defined(SIGNBIT_EMULATE_AVX512)
    asm volatile("" : "+v"(x));
#endif
    return x;
  };
#if !defined(SIGNBIT_EMULATE_AVX512)
  asm volatile("" : "+v"(word), "+v"(sum));  // no constants: an exclusive or with one of these is another instruction, or none
#endif
  BitSums bits[kPixels];
  for (int i = 0; i < kPixels; i++) bits[i] = no_bits();
  for (int64_t round = 0; round < rounds; round++) {
    for (int i = 0; i < kPixels; i++) add_two(bits[i], xor_bytes(word, pixel()), xor_bytes(sum, pixel()));
  }
  int64_t macs = 0;
  for (int i = 0; i < kPixels; i++) {
    alignas(64) int64_t lanes[8];
    store_bytes(reinterpret_cast<uint8_t*>(lanes), count_all(bits[i]));
    for (const int64_t lane : lanes) macs += lane;
  }
  return macs;
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
