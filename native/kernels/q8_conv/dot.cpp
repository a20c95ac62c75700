// 8-bit convolution: lanes are pixels, four channels of a pixel are one dword, and a dot-product
// instruction (or its 16-bit equivalent) adds four products to each pixel's 32-bit sum.
//
// Halo positions hold the zero point, so that the sum over all taps of q * w needs only the constant
// `zero_point * sum of weights` subtracted to be the exact sum of (q - zero_point) * w.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../epilogue/epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

#if defined(SIGNBIT_BUILD_AVX512)
constexpr int kDotVectors = 4;  // times 4 channels: 16 sums in 32 registers
#else
constexpr int kDotVectors = 2;  // 8 sums in 16 registers
#endif

void q8_conv(const Q8Conv& c, const Epilogue& e, int64_t begin, int64_t end) {
  const int64_t tiles = int64_t(c.body / kTile);
  const int blocks = (c.group_channels + kQ8Channels - 1) / kQ8Channels;
  const size_t step_bytes = size_t(kQ8Channels) * kQuadBytes;
  constexpr int kStep = kDotVectors * kDots;
  for (int64_t item = begin; item < end; item++) {
    const int block = int(item / tiles);
    const size_t p = size_t(item % tiles) * kTile;
    const int group = block / blocks;
    const int first = (block % blocks) * kQ8Channels;
    const int left = c.group_channels - first;
    const int channels = left < kQ8Channels ? left : kQ8Channels;
    const int channel = group * c.group_channels + first;
    const uint8_t* in = c.input + size_t(group) * c.group_stride + 4 * p;
    const uint8_t* weights = c.weights + size_t(block) * size_t(c.steps) * step_bytes;
    alignas(64) int32_t sums[kQ8Channels][kTile];
    for (int i = 0; i < kTile; i += kStep) {
      Dots sum[kDotVectors][kQ8Channels];
      for (int v = 0; v < kDotVectors; v++)
        for (int j = 0; j < kQ8Channels; j++) sum[v][j] = zero_dots();
      const uint8_t* w = weights;
      for (int k = 0; k < c.steps; k++, w += step_bytes) {
        Quads x[kDotVectors];
        for (int v = 0; v < kDotVectors; v++)
          x[v] = load_quads(in + c.offset[k] + 4 * (i + v * kDots));
        for (int j = 0; j < kQ8Channels; j++)
          for (int v = 0; v < kDotVectors; v++)
            sum[v][j] = add_dots(sum[v][j], x[v], w + j * kQuadBytes);
      }
      for (int v = 0; v < kDotVectors; v++)
        for (int j = 0; j < kQ8Channels; j++) store_dots(&sums[j][i + v * kDots], sum[v][j]);
    }
    for (int j = 0; j < channels; j++) {
      const int32_t correction = c.correction[channel + j];
      for (int i = 0; i < kTile; i++) sums[j][i] -= correction;
      run_epilogue<kTile, int32_t>(e, channel + j, p, sums[j]);
    }
  }
}

void pack_q8_quad(const int8_t* weights, uint8_t* packed) { pack_quad(weights, packed); }
int q8_quad_bytes() { return kQuadBytes; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
