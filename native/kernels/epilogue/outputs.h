// The end of convolutions whose lanes are output channels: each channel's pixels become a tile for its epilogue.
#pragma once

#include "epilogue.h"

namespace signbit {
namespace SIGNBIT_NS {

template <int N, typename Int, typename Value>
static inline void finish_tile(const OutputsConv& c, const Epilogue& e, int32_t first, int32_t count, Value value) {
  alignas(64) Int tile[N];
  for (int32_t j = 0; j < count; j++) {
    memset(tile, 0, sizeof tile);
    for (int32_t i = 0; i < c.pixels; i++) tile[c.pixel[i]] = value(i, j);
    run_epilogue<N, Int>(e, first + j, 0, tile);
  }
}

// `value(pixel, channel behind the first)` for the channels [first, first + count) that there are.
template <typename Int, typename Value>
static inline void finish_outputs(const OutputsConv& c, const Epilogue& e, int32_t first, int32_t count, Value value) {
  count = c.channels - first < count ? c.channels - first : count;
  if (e.end <= kSmallTile)
    finish_tile<kSmallTile, Int>(c, e, first, count, value);
  else
    finish_tile<kTile, Int>(c, e, first, count, value);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
