// The same of small maps: lanes are output channels. Of each weight, a number of eight bits in two's complement, every bit that
// is 1 lets the pixel's value pass into the sum of that power; the sums are added up at the end. Where an instruction chooses
// among a vector's lanes, kIndexBits inputs pass at once: their sums, with all patterns of bits, are the lanes of a table.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/outputs.h"

namespace signbit {
namespace SIGNBIT_NS {

// Fields of kIndexBits bits in a word of weights.
constexpr int kFields = 32 / kIndexBits;

// Lane i holds the sum of those inputs x[k] whose bit k of i is 1.
static inline Ints lane_sums(const int32_t* x) {
  if (kIndexBits == 1) return all_ints(x[0]);
  Ints lane, sum = all_ints(0);
  for (int i = 0; i < kInts; i++) lane[i] = i;
  for (int k = 0; k < kIndexBits; k++) sum += ((lane >> k & 1) != 0) & all_ints(x[k]);
  return sum;
}

template <typename T>
static inline void shift_outputs_sum(const ShiftOutputsConv& c, const uint8_t* weights, const uint8_t* pixel, int32_t* sums) {
  Ints power[8];
  for (int bit = 0; bit < 8; bit++) power[bit] = all_ints(0);
  for (int32_t step = 0; step < c.steps; step += kIndexBits * kFields) {
    Ints table[kFields];
    for (int f = 0; f < kFields; f++) {
      int32_t x[kIndexBits];
      for (int k = 0; k < kIndexBits; k++) {
        const int32_t at = step + f * kIndexBits + k;
        x[k] = at < c.steps ? int32_t(*reinterpret_cast<const T*>(pixel + c.offset[at])) : 0;
      }
      table[f] = lane_sums(x);
    }
    for (int bit = 0; bit < 8; bit++, weights += sizeof(Ints)) {
      Ints word = *reinterpret_cast<const IntsAnywhere*>(weights);
      for (int f = 0; f < kFields; f++) {
        if (kIndexBits == 1) {
          power[bit] += (word < 0) & table[f];
          word += word;
        } else {
          power[bit] += lanes_of(table[f], word);
          word >>= kIndexBits;
        }
      }
    }
  }
  Ints sum = -power[7];
  for (int bit = 6; bit >= 0; bit--) sum = sum + sum + power[bit];
  *reinterpret_cast<IntsAnywhere*>(sums) = sum;
}

void conv_shift_outputs(const ShiftOutputsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  const size_t words = (size_t(c.steps) + kIndexBits * kFields - 1) / (kIndexBits * kFields);
  for (int64_t block = begin; block < end; block++) {
    alignas(64) int32_t sums[kTile][kInts];
    const uint8_t* w = c.weights + size_t(block) * words * 8 * sizeof(Ints);
    for (int32_t i = 0; i < c.pixels; i++) {
      const uint8_t* pixel = c.input + size_t(c.pixel[i]) * size_t(c.element);
      if (c.element == 1)
        shift_outputs_sum<uint8_t>(c, w, pixel, sums[i]);
      else if (c.element == 2)
        shift_outputs_sum<int16_t>(c, w, pixel, sums[i]);
      else
        shift_outputs_sum<int32_t>(c, w, pixel, sums[i]);
    }
    const int32_t first = int32_t(block) * kInts;
    finish_outputs_integer(c, e, first, kInts, [&](int32_t i, int32_t channel) { return sums[i][channel] - c.subtract[first + channel]; });
  }
}

int shift_outputs() { return kInts; }
int shift_index_bits() { return kIndexBits; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
