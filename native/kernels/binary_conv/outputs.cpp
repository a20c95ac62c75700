// Binary convolution of small maps, by look-up with the roles swapped: a pixel's activation picks the table, and the lanes
// are output channels, whose weights are looked up in it.
//
// A step's weights are a vector of bytes: those of channel j in the low field of lane j, those of channel kBytes + j in the
// high one. Matches of up to 63 steps (4 * 63 = 252 <= 255) are added in bytes before they widen.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/outputs.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kStepsBeforeWidening = 63;
constexpr int kOutputs = 2 * kBytes;

// Matches of a pixel with kOutputs channels, in their order.
static inline void count_outputs(const OutputsConv& c, const uint8_t* w, const uint8_t* pixel, int16_t* matches) {
  Pairs total[2];
  for (int half = 0; half < 2; half++) total[half].even = total[half].odd = zero_words();
  for (int32_t step = 0; step < c.steps;) {
    Bytes low = zero_bytes(), high = zero_bytes();
    const int32_t last = c.steps - step < kStepsBeforeWidening ? c.steps : step + kStepsBeforeWidening;
    for (; step < last; step++) {
      const uint8_t x = pixel[c.offset[step]];
      if (x & kOutside) continue;
      const Bytes table = load_table(kMatchTable.entry[x]), weights = load_bytes(w + size_t(step) * kBytes);
      low = add_bytes(low, look_up(table, low_fields(weights)));
      high = add_bytes(high, look_up(table, high_fields(weights)));
    }
    const Pairs wide[2] = {widen_bytes(low), widen_bytes(high)};
    for (int half = 0; half < 2; half++) {
      total[half].even = add_words(total[half].even, wide[half].even);
      total[half].odd = add_words(total[half].odd, wide[half].odd);
    }
  }
  for (int half = 0; half < 2; half++) store_in_order(matches + half * kBytes, total[half]);
}

// `finish(first channel, matches of each pixel)` for each block of channels.
template <typename Finish>
static inline void for_blocks(const OutputsConv& c, int64_t begin, int64_t end, Finish finish) {
  for (int64_t block = begin; block < end; block++) {
    alignas(64) int16_t matches[kTile][kOutputs];
    const uint8_t* w = c.weights + size_t(block) * size_t(c.steps) * kBytes;
    for (int32_t i = 0; i < c.pixels; i++) count_outputs(c, w, c.input + c.pixel[i], matches[i]);
    finish(int32_t(block) * kOutputs, matches);
  }
}

void binary_outputs_conv(const OutputsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  for_blocks(c, begin, end, [&](int32_t first, const int16_t (*matches)[kOutputs]) {
    finish_outputs(c, e, first, kOutputs, [&](int32_t i, int32_t channel) { return 2 * matches[i][channel] - c.subtract[i]; });
  });
}

void binary_outputs_conv_integer(const OutputsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  for_blocks(c, begin, end, [&](int32_t first, const int16_t (*matches)[kOutputs]) {
    finish_outputs_integer(c, e, first, kOutputs, [&](int32_t i, int32_t channel) {
      return 2 * matches[i][channel] - c.subtract[i];
    });
  });
}

int binary_outputs() { return kOutputs; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
