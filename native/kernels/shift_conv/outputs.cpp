// The same of small maps: lanes are output channels. Of each weight, a number of eight bits in two's complement, every bit that
// is 1 lets the pixel's value pass into the sum of that power; the sums are added up at the end.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/outputs.h"

namespace signbit {
namespace SIGNBIT_NS {

typedef int8_t Weights __attribute__((vector_size(kInts), aligned(1), may_alias));

template <typename T>
static inline void shift_outputs_sum(const ShiftOutputsConv& c, const uint8_t* weights, const uint8_t* pixel, int32_t* sums) {
  Ints power[8];
  for (int bit = 0; bit < 8; bit++) power[bit] = all_ints(0);
  for (int32_t step = 0; step < c.steps; step++, weights += kInts) {
    const Ints x = all_ints(*reinterpret_cast<const T*>(pixel + c.offset[step]));
    Ints w = __builtin_convertvector(*reinterpret_cast<const Weights*>(weights), Ints) << 24;
    for (int bit = 7; bit >= 0; bit--) {
      power[bit] += (w < 0) & x;
      w += w;
    }
  }
  Ints sum = -power[7];
  for (int bit = 6; bit >= 0; bit--) sum = sum + sum + power[bit];
  *reinterpret_cast<IntsAnywhere*>(sums) = sum;
}

void conv_shift_outputs(const ShiftOutputsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; block++) {
    alignas(64) int32_t sums[kTile][kInts];
    const uint8_t* w = c.weights + size_t(block) * size_t(c.steps) * kInts;
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

}  // namespace SIGNBIT_NS
}  // namespace signbit
