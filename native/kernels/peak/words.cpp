// Words compared and counted as fast as the CPU does it: operands that are there.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kPixels = 6;
constexpr int64_t kGroupMacs = 4 * 8 * kBytes;

int64_t peak_word_macs() { return kPixels * kGroupMacs; }

// The steps of `words.cpp`, on words that differ in all bits: the sum of two and of four of them is 0.
int64_t peak_words(int64_t rounds) {
  const Bytes word = all_bytes(0xFF), sum = zero_bytes();
  // A register that the compiler takes for another one each time, so that no comparison stands for two.
  const auto pixel = []() __attribute__((always_inline)) {
    Bytes x = zero_bytes();
#if !defined(SIGNBIT_EMULATE_AVX512)
    asm volatile("" : "+v"(x));
#endif
    return x;
  };
  Bytes ones[kPixels], twos[kPixels], fours[kPixels];
  for (int i = 0; i < kPixels; i++) ones[i] = twos[i] = fours[i] = zero_bytes();
  for (int64_t round = 0; round < rounds; round++) {
    for (int i = 0; i < kPixels; i++) {
      const Bytes w1 = xor_bytes(word, pixel()), s2 = xor_bytes(sum, pixel());
      const Bytes w3 = xor_bytes(word, pixel()), s4 = xor_bytes(sum, pixel());
      const Bytes c2 = carry_with_sum(ones[i], w1, s2), c4 = carry_with_sum(s2, w3, s4);
      fours[i] = add_counts(fours[i], count_bits(carry(twos[i], c2, c4)));
      twos[i] = sum_bits(twos[i], c2, c4);
      ones[i] = s4;
    }
  }
  int64_t macs = 0;
  for (int i = 0; i < kPixels; i++) {
    alignas(64) int64_t lanes[8];
    store_bytes(reinterpret_cast<uint8_t*>(lanes), weigh_counts(fours[i], count_bits(twos[i]), count_bits(ones[i])));
    for (const int64_t lane : lanes) macs += lane;
  }
  return macs;
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
