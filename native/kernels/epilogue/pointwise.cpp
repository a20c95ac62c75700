// An epilogue over a map that no convolution produced: real values, or bits as -1 and +1.
#include "../../simd/simd.h"
#include "../declare.h"
#include "epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

// Items: (block of 4 channels) * tiles + tile; `load(channel, position, tile)` fetches a channel's tile.
template <int N, typename Load>
static inline void run_tiles(size_t body, const Epilogue& e, int64_t begin, int64_t end, Load load) {
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / tiles) * 4;
    const size_t p = size_t(item % tiles) * kTile;
    const int last = first + 4 < e.channels ? first + 4 : e.channels;
    for (int channel = first; channel < last; channel++) {
      float f[N];
      load(channel, p, f, N);
      run_float_steps<N>(e, 0, channel, p, f);
    }
  }
}

template <typename Load>
static inline void run_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Load load) {
  if (e.end <= kSmallTile)
    run_tiles<kSmallTile>(body, e, begin, end, load);
  else
    run_tiles<kTile>(body, e, begin, end, load);
}

void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
               int64_t end) {
  run_items(body, e, begin, end, [=](int channel, size_t p, float* f, int count) {
    memcpy(f, src + size_t(channel) * src_plane + 4 * p, size_t(count) * sizeof(float));
  });
}

void pointwise_b1(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                  int64_t end) {
  run_items(body, e, begin, end, [=](int channel, size_t p, float* f, int count) {
    const uint8_t* bits = src + size_t(channel / 4) * src_plane + p;
    const int shift = channel % 4;
    for (int i = 0; i < count; i++) f[i] = float(2 * ((bits[i] >> shift) & 1) - 1);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
