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

#if defined(SIGNBIT_BUILD_AVX512) || defined(SIGNBIT_BUILD_NEON_DOT)
constexpr int kDotVectors = 4;  // times 4 channels: 16 sums in 32 registers
#else
constexpr int kDotVectors = 2;  // 8 sums in 16 registers (NEON: of two registers each, in 32)
#endif
#if !defined(SIGNBIT_BUILD_NEON_DOT)
// Bytes are multiplied as they are: nothing to add to the four channels' sums.
static inline void sum_offsets(const uint8_t*, int, int32_t* offset) { memset(offset, 0, 16); }
#endif

void q8_conv(const Q8Conv& c, const Epilogue& e, int64_t begin, int64_t end) {
  constexpr size_t kStepBytes = size_t(kQ8Channels) * kQuadBytes;
  constexpr int kPositions = kDotVectors * kDots;
  ConvWalk at = walk_from(c, begin, kTile);
  for (int64_t item = begin; item < end; item++, advance(c, &at)) {
    const ConvSegment& s = c.segments[c.first[at.block]];
    const size_t position = size_t(at.start + at.tile) * kTile;
    const uint8_t* input = s.input + 4 * position;
    const int32_t* offset = s.offset;
    const int steps = s.steps;
    alignas(64) int32_t sums[kQ8Channels][kTile];
    for (int i = 0; i < kTile; i += kPositions) {
      Dots sum[kDotVectors][kQ8Channels];
      for (int v = 0; v < kDotVectors; v++)
        for (int j = 0; j < kQ8Channels; j++) sum[v][j] = zero_dots();
      const uint8_t* w = s.weights;
      for (int k = 0; k < steps; k++, w += kStepBytes) {
        const uint8_t* seen = input + offset[k];
        Quads x[kDotVectors];
        for (int v = 0; v < kDotVectors; v++)
          x[v] = load_quads(seen + 4 * (i + v * kDots));
        for (int j = 0; j < kQ8Channels; j++)
          for (int v = 0; v < kDotVectors; v++)
            sum[v][j] = add_dots(sum[v][j], x[v], w + j * kQuadBytes);
      }
      for (int v = 0; v < kDotVectors; v++)
        for (int j = 0; j < kQ8Channels; j++) store_dots(&sums[j][i + v * kDots], sum[v][j]);
    }
    int32_t excess[kQ8Channels];
    sum_offsets(s.weights, s.steps, excess);
    for (int j = 0; j < s.channels; j++) {
      const int channel = s.channel + j;
      const int32_t correction = c.correction[channel] - excess[j];
      for (int i = 0; i < kTile; i++) sums[j][i] -= correction;
      run_epilogue<kTile, int32_t>(e, channel, position, sums[j]);
    }
  }
}

void pack_q8_quad(const int8_t* weights, uint8_t* packed) { pack_quad(weights, packed); }
int q8_quad_bytes() { return kQuadBytes; }

}  // namespace SIGNBIT_NS
}  // namespace signbit
