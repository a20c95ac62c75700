// An epilogue over a map that no convolution produced: real values, or bits as -1 and +1.
#include "../../simd/simd.h"
#include "../declare.h"
#include "epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

// Items: (block of 4 channels) * tiles + tile; `load(channel, position)` fetches a block of a channel.
template <typename Load>
static inline void run_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Load load) {
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / tiles) * 4;
    const size_t p = size_t(item % tiles) * kTile, left = e.end - p < kTile ? e.end - p : kTile;
    const int last = first + 4 < e.channels ? first + 4 : e.channels;
    for (int channel = first; channel < last; channel++)
      run_epilogue(e, channel, p, int((left + kBytes - 1) / kBytes),
                   [&](int i) __attribute__((always_inline)) { return load(channel, p + size_t(i) * kBytes); });
  }
}

void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
               int64_t end) {
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    return load_floats(reinterpret_cast<const float*>(src + size_t(channel) * src_plane) + p);
  });
}

void pointwise_b1(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                  int64_t end) {
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    IntBlock b = load_int8(reinterpret_cast<const int8_t*>(src + size_t(channel / 4) * src_plane + p));
    for (int j = 0; j < 4; j++) b.v[j] = 2 * ((b.v[j] >> (channel % 4)) & 1) - 1;
    return to_floats(b);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
