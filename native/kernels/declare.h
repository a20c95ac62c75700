// The functions that one instruction set's sources give to its table.
#pragma once

#include "kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

// What a work item of a convolution is: a tile of positions of a block of channels.
struct ConvItem {
  size_t position;
  int channel, channels;   // first output channel, and how many there are of a block's
  const uint8_t* input;    // of the item's group, at `position`
  const uint8_t* weights;  // of the block
};

// Items run over positions first, so that a block's weights stay in cache.
static inline ConvItem find_item(const Conv& c, int64_t item, int block_channels, size_t tile,
                                 size_t position_bytes, size_t step_bytes) {
  const int64_t tiles = int64_t((c.body + tile - 1) / tile);
  const int blocks = (c.group_channels + block_channels - 1) / block_channels;
  const int block = int(item / tiles), group = block / blocks;  // blocks of all groups
  const int first = (block % blocks) * block_channels, left = c.group_channels - first;
  ConvItem found;
  found.position = size_t(item % tiles) * tile;
  found.channel = group * c.group_channels + first;
  found.channels = left < block_channels ? left : block_channels;
  found.input = c.input + size_t(group) * c.group_stride + found.position * position_bytes;
  found.weights = c.weights + size_t(block) * size_t(c.steps) * step_bytes;
  return found;
}

void binary_conv(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
int binary_conv_tile();
void q8_conv(const Q8Conv&, const Epilogue&, int64_t begin, int64_t end);
void pack_q8_quad(const int8_t* weights, uint8_t* packed);
int q8_quad_bytes();
void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
               int64_t end);
void max_pool_f32(const Pool&, int64_t begin, int64_t end);
void max_pool_b1(const Pool&, int64_t begin, int64_t end);
void avg_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_b1(const Pool&, int64_t begin, int64_t end);

}  // namespace SIGNBIT_NS
}  // namespace signbit
