// An epilogue over a real-valued map that no convolution produced.
#include "../../simd/simd.h"
#include "../declare.h"
#include "epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
               int64_t end) {
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / tiles) * 4;
    const size_t p = size_t(item % tiles) * kTile;
    const int last = first + 4 < e.channels ? first + 4 : e.channels;
    for (int channel = first; channel < last; channel++) {
      float f[kTile];
      memcpy(f, src + size_t(channel) * src_plane + 4 * p, sizeof f);
      run_float_steps<kTile>(e, 0, channel, p, f);
    }
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
