// 8-bit convolution of small maps: a pixel's quad of channels is spread over all lanes, which are output channels. Weights
// are read once a pixel, one behind the other.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/outputs.h"

namespace signbit {
namespace SIGNBIT_NS {

constexpr int kVectors = 4;
constexpr int kOutputs = kVectors * kDots;

void q8_outputs_conv(const OutputsConv& c, const Epilogue& e, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; block++) {
    alignas(64) int32_t sums[kTile][kOutputs];
    for (int32_t i = 0; i < c.pixels; i++) {
      const uint8_t* pixel = c.input + 4 * size_t(c.pixel[i]);
      const uint8_t* w = c.weights + size_t(block) * size_t(c.steps) * 4 * kOutputs;
      Dots sum[kVectors];
      for (int v = 0; v < kVectors; v++) sum[v] = zero_dots();
      for (int32_t step = 0; step < c.steps; step++) {
        const Splat x = splat_quad(pixel + c.offset[step]);
        for (int v = 0; v < kVectors; v++, w += 4 * kDots) sum[v] = add_outputs(sum[v], w, x);
      }
      for (int v = 0; v < kVectors; v++) store_dots(sums[i] + v * kDots, sum[v]);
    }
    const int32_t first = int32_t(block) * kOutputs;
    finish_outputs(c, e, first, kOutputs, [&](int32_t i, int32_t channel) {
      return sums[i][channel] - c.subtract[first + channel];
    });
  }
}

void pack_q8_outputs(const int8_t* weights, uint8_t* packed) {
  for (int v = 0; v < kVectors; v++) pack_outputs(weights + 4 * v * kDots, packed + 4 * v * kDots);
}

int q8_outputs() { return kOutputs; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
