// The functions that one instruction set's sources give to its table.
#pragma once

#include "kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

// A walk through the work items of a convolution, in the order that Conv says.
struct ConvWalk {
  const int32_t* band;
  int64_t start;   // the band's first tile
  int64_t width;   // the band's tiles
  int64_t block, tile;  // the item: a block of channels, a tile of the band
};

static inline void enter_band(const int32_t* band, ConvWalk* w) {
  w->band = band;
  w->start = band[0];
  w->width = band[1] - band[0];
}

static inline ConvWalk walk_from(const ConvItems& c, int64_t item) {
  ConvWalk w;
  const int32_t* band = c.band;
  while (band[1] * c.blocks <= item) band++;
  enter_band(band, &w);
  const int64_t within = item - w.start * c.blocks;
  w.block = within / w.width;
  w.tile = within % w.width;
  return w;
}

static inline void advance(const ConvItems& c, ConvWalk* w) {
  if (++w->tile < w->width) return;
  w->tile = 0;
  if (++w->block < c.blocks) return;
  w->block = 0;
  enter_band(w->band + 1, w);
}

void binary_conv(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
void binary_conv_integer(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
int binary_conv_vector();
void words_conv(const WordsConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
void words_conv_integer(const WordsConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
void tile_spread(const TileConv&, int64_t begin, int64_t end);
void tile_conv(const TileConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
void tile_q8_conv(const TileQ8Conv&, const Epilogue&, uint8_t* gathered, int64_t begin, int64_t end);
void q8_conv(const Q8Conv&, const Epilogue&, int64_t begin, int64_t end);
int32_t pack_q8(const int8_t* weights, int32_t steps, uint8_t* packed, int32_t* order, Q8Runs* runs);
int q8_quad_bytes();
int q8_pack();
void conv_shift(const ShiftConv&, const Epilogue&, int64_t begin, int64_t end);
void conv_signs(const SignsConv&, const Epilogue&, int64_t begin, int64_t end);
int binary_outputs();
int q8_outputs();
int shift_outputs();
int shift_index_bits();
void binary_outputs_conv(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
void binary_outputs_conv_integer(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
void conv_shift_outputs(const ShiftOutputsConv&, const Epilogue&, int64_t begin, int64_t end);
void q8_outputs_conv(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
void pack_q8_outputs(const int8_t* weights, uint8_t* packed);
void import_quads(const float* src, const Geometry&, const Epilogue&, int64_t begin, int64_t end);
void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
               int64_t end);
void pointwise_b1(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
                  int64_t end);
void pointwise_i16(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
                   int64_t end);
void max_pool_f32(const Pool&, int64_t begin, int64_t end);
void max_pool_b1(const Pool&, int64_t begin, int64_t end);
void max_pool_i16(const Pool&, int64_t begin, int64_t end);
void avg_pool_f32(const Pool&, int64_t begin, int64_t end);
void avg_pool_i16(const Pool&, int64_t begin, int64_t end);
void adaptive_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_b1(const Pool&, int64_t begin, int64_t end);
void global_sum_i16(const Pool&, int64_t begin, int64_t end);
void channels_f32(const ChannelMove&, int64_t begin, int64_t end);
void channels_b1(const ChannelMove&, int64_t begin, int64_t end);
void channels_i16(const ChannelMove&, int64_t begin, int64_t end);
void nearest_f32(const Resize&, int64_t begin, int64_t end);
void nearest_b1(const Resize&, int64_t begin, int64_t end);
void bilinear_f32(const Resize&, int64_t begin, int64_t end);
void pixel_shuffle_f32(const Shuffle&, int64_t begin, int64_t end);
void pixel_shuffle_b1(const Shuffle&, int64_t begin, int64_t end);
int64_t peak_look_ups(int64_t rounds);
int64_t peak_dots(int64_t rounds);
int64_t peak_look_up_macs();
int64_t peak_dot_macs();
int64_t peak_words(int64_t rounds);
int64_t peak_word_macs();
int64_t peak_tiles(int64_t rounds);
int64_t peak_tile_macs();
void peak_copy(uint8_t* to, const uint8_t* from, size_t bytes);

}  // namespace SIGNBIT_NS
}  // namespace signbit
