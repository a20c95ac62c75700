// The end of convolutions whose lanes are output channels: each channel's pixels become a tile for its epilogue.
#pragma once

#include "integer.h"

namespace signbit {
namespace SIGNBIT_NS {

// `value(pixel, channel behind the first)` for the channels [first, first + count) that there are; `finish(channel, tile)`.
template <typename Value, typename Finish>
static inline void finish_each(const OutputsConv& c, int32_t first, int32_t count, Value value, Finish finish) {
  alignas(64) int32_t tile[kTile];
  memset(tile, 0, sizeof tile);
  count = c.channels - first < count ? c.channels - first : count;
  for (int32_t j = 0; j < count; j++) {
    for (int32_t i = 0; i < c.pixels; i++) tile[c.pixel[i]] = value(i, j);
    finish(first + j, tile);
  }
}

template <typename Value>
static inline void finish_outputs(const OutputsConv& c, const Epilogue& e, int32_t first, int32_t count, Value value) {
  finish_each(c, first, count, value, [&](int32_t channel, const int32_t* tile) __attribute__((always_inline)) {
    run_epilogue(e, channel, 0, int((e.end + kBytes - 1) / kBytes), [&](int i) __attribute__((always_inline)) {
      return load_ints(tile + i * kBytes);
    });
  });
}

// The same where the epilogue is of integer steps without a multiplication.
template <typename Value>
static inline void finish_outputs_integer(const OutputsConv& c, const Epilogue& e, int32_t first, int32_t count, Value value) {
  finish_each(c, first, count, value, [&](int32_t channel, const int32_t* tile) __attribute__((always_inline)) {
    IntBlock blocks[kTile / kBytes];
    for (int i = 0; i < kTile / kBytes; i++) blocks[i] = load_ints(tile + i * kBytes);
    integer_steps(e, channel, 0, int((e.end + kBytes - 1) / kBytes), blocks);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
