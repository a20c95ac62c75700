// The functions that one instruction set's sources give to its table.
#pragma once

#include "kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

// What a work item of a convolution is: a tile of positions of a block's segments.
struct ConvItem {
  size_t position;
  const ConvSegment* begin;
  const ConvSegment* end;
};

static inline ConvItem find_item(const Conv& c, int64_t item, size_t tile) {
  const int64_t tiles = int64_t((c.body + tile - 1) / tile);
  const int64_t start = item / (c.band * c.blocks) * c.band;  // the band's first tile
  const int64_t width = tiles - start < c.band ? tiles - start : c.band;
  const int64_t within = item - start * c.blocks, block = within / width;
  return {size_t(start + within % width) * tile, c.segments + c.first[block], c.segments + c.first[block + 1]};
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
