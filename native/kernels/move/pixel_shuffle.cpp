// Pixel shuffle: each row of the result takes its pixels in turn from `factor` planes of the input.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../rows.h"

namespace signbit {
namespace SIGNBIT_NS {

// Channel of the input that pixels (y, x) with x mod factor = j of a channel of the result come from.
static inline size_t source_channel(const Shuffle& s, int channel, int y, int j) {
  return (size_t(channel) * size_t(s.factor) + size_t(y % s.factor)) * size_t(s.factor) + size_t(j);
}

void pixel_shuffle_f32(const Shuffle& s, int64_t begin, int64_t end) {
  for_rows(s, begin, end, [&](int plane, int image, int y) {
    float* row = result_row<float>(s, size_t(plane), image, y);
    for (int j = 0; j < s.factor; j++) {
      const float* __restrict src = source_row<float>(s, source_channel(s, plane, y, j), image, y / s.factor);
      float* __restrict dst = row + j;
      for (int x = 0; x < s.in->width; x++) dst[size_t(x) * size_t(s.factor)] = src[x];
    }
  });
}

void pixel_shuffle_b1(const Shuffle& s, int64_t begin, int64_t end) {
  for_rows(s, begin, end, [&](int plane, int image, int y) {
    uint8_t* row = result_row<uint8_t>(s, size_t(plane), image, y);
    memset(row, 0, size_t(s.out->width));
    for (int k = 0; k < 4 && 4 * plane + k < s.channels; k++)
      for (int j = 0; j < s.factor; j++) {
        const size_t channel = source_channel(s, 4 * plane + k, y, j);
        const uint8_t* __restrict src = source_row<uint8_t>(s, channel / 4, image, y / s.factor);
        uint8_t* __restrict dst = row + j;
        const int shift = int(channel % 4);
        for (int x = 0; x < s.in->width; x++) {
          uint8_t& byte = dst[size_t(x) * size_t(s.factor)];
          byte = uint8_t(byte | (((src[x] >> shift) & 1) << k));
        }
      }
    close_row(s, plane, image, y);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
