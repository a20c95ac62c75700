// What the engine and the kernels say to each other: plain structures and one table of function
// pointers an instruction set. Kernel sources include this header only, and no standard C++ header
// with inline code: they are compiled once per instruction set, and the linker must have nothing to merge.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace signbit {

// Positions are processed in tiles of 64 or 128, so every plane's body is a multiple of 64 positions.
constexpr int kTile = 64;
constexpr int kMaxTile = 128;  // of binary convolutions
constexpr int kMaxSteps = 12;
// Output channels of a work item of a convolution. Both are multiples of 4: a nibble plane, and an 8-bit quad, is
// written by one call alone, and in order.
constexpr int kBinaryChannels = 8;
constexpr int kQ8Channels = 4;
// A byte with this bit looks up 0 in every table: a tap outside the image matches nothing.
constexpr uint8_t kOutside = 0x80;

// How the maps of one resolution lie in memory. A plane is the batch of images flattened: image after
// image, row after row, with `halo` columns behind every row and `halo` rows behind every image, so that a
// filter tap is a constant offset. `margin` positions stand before and behind the body.
struct Geometry {
  int batch, height, width, halo;
  int row_stride;     // width + halo
  int image_rows;     // height + halo
  size_t margin;      // positions, multiple of 64
  size_t end;         // one behind the last pixel
  size_t body;        // positions: `end`, rounded up to a multiple of 64
  size_t plane;       // margin + body + margin, in positions
  uint8_t* outside;   // [body]: 0xFF where a position is not a pixel, else 0
};

enum class StepKind : int32_t {
  kAffine = 1, kAdd = 2, kRPReLU = 3, kPReLU = 4, kQuant4Shift = 5, kQuant4Ladder = 6, kStore = 7,
  kThreshold = 8, kSign = 9, kQuant8 = 10, kMul = 11, kClip = 12, kSigmoid = 13, kShiftSum = 14, kShiftPReLU = 15,
  kQuant16 = 16, kBias = 17,
};

// The same, told apart by what they work on.
enum class StepCode : int32_t {
  kAffine = 1, kAdd = 2, kRPReLU = 3, kPReLU = 4, kQuant4Shift = 5, kQuant4Ladder = 6, kStore = 7,
  kThreshold = 8, kSign = 9, kQuant8 = 10, kMul = 11, kClip = 12, kSigmoid = 13, kShiftSum = 14, kShiftPReLU = 15,
  kQuant16 = 16, kBias = 17, kAddI4 = 18, kStoreI4 = 19, kAddI16 = 20, kStoreI16 = 21, kStoreI32 = 22,
};
constexpr bool is_integer(StepCode c) {
  return c == StepCode::kQuant4Shift || c == StepCode::kQuant4Ladder || c == StepCode::kThreshold || c == StepCode::kShiftSum ||
         c == StepCode::kShiftPReLU || c == StepCode::kBias || c == StepCode::kAddI4 || c == StepCode::kStoreI4 ||
         c == StepCode::kAddI16 || c == StepCode::kStoreI16 || c == StepCode::kStoreI32;
}
// Without a multiplication.
constexpr bool is_shifting(StepCode c) {
  return is_integer(c) && c != StepCode::kQuant4Shift && c != StepCode::kQuant4Ladder && c != StepCode::kAddI4 &&
         c != StepCode::kStoreI4;
}
// The codes of an epilogue's steps in one number, five bits each from the first on.
template <StepCode... kCodes>
constexpr uint64_t chain_of() {
  uint64_t chain = 0;
  int at = 0;
  ((chain |= uint64_t(kCodes) << 5 * at++), ...);
  return chain;
}

// A channel's sum of signed shifts as kernels do it on 16-bit numbers: `start` plus, for each digit, the number shifted to the
// left or to the right (or by nothing), with its bits inverted where the digit is negative: `start` counts those. Numbers
// are first brought between `low` and `high`, and those that were not there become `below` or `above`, in sums that
// saturate: where the sum would not fit 16 bits.
struct ShiftWords {
  int16_t count;  // of digits
  int16_t left[4], right[4], invert[4];
  int16_t start;
  int16_t clamps;  // 0 where no number is beyond the limits
  int16_t low, high, below, above;
};

// A step of an epilogue with its arrays resolved to addresses.
struct EpilogueStep {
  StepCode code;
  const float* f0;
  const float* f1;
  const float* f2;
  const int32_t* i0;
  const int32_t* i1;
  const int32_t* i2;
  const int32_t* i3;
  const uint8_t* flip;
  const ShiftWords* words;  // shift_sum, shift_prelu: [channels], where 16-bit numbers do for the step, else null
  int32_t digits;           // the same: of each channel
  int32_t wide;             // the same: 1 where the sums need more than 32 bits
  int32_t shift;
  int32_t zero_point;
  int32_t levels;          // quant8: the greatest number
  float inv_scale;
  float minimum, maximum;  // clip
  uint8_t* data;      // the value's body: first position behind the margin of plane 0
  size_t plane;       // bytes between planes of this value; 0 where one channel stands for all (add, mul)
  size_t image_step;  // add, mul: positions between the pixels of a value that has one pixel an image, else 0
  uint8_t halo;       // threshold, sign, quant8: byte written outside the image, which is what the map's reader wants there
  uint8_t last_halo;  // the same for the last nibble plane, whose padding channels stay 0
};

struct Epilogue {
  int32_t count;
  int32_t channels;          // of the node's result
  uint64_t chain;            // chain_of the steps
  int32_t narrow;            // integer steps alone: from this one on they work on 16-bit numbers
  // What networks with shortcuts have, 16-bit numbers from the first step on: shift_sum, add, then where there is one a
  // shift_prelu, and a threshold or a store or both. The steps' numbers, 0 for none.
  int32_t residual;          // 1 where the steps are these
  int32_t activates, compares, stores;
  int32_t batch;
  size_t image;              // positions from one image to the next
  size_t end;                // Geometry::end
  const uint8_t* outside;    // Geometry::outside
  EpilogueStep steps[kMaxSteps];
};

// Output channels of a convolution that one pass over the taps computes. Step k = (tap, plane) reads four input
// channels: output position p finds them `offset[k]` bytes from its own place in `input`.
struct ConvSegment {
  const uint8_t* input;      // body of the first plane read, of the (possibly repacked) input
  const int32_t* offset;     // [steps] in bytes
  const uint8_t* mask;       // [steps]: which of a nibble's channels belong to the group; null: all (binary)
  const uint8_t* weights;    // [steps], then as the kernel wants them
  int32_t steps;
  int32_t channel, channels; // output channels: the first, and how many
  int32_t pairs;             // of channels that a step has weights for: 1, 2 or 4 (binary)
};

// The work items of a convolution. A block of output channels is computed by one call, whose segments follow one
// another; work items are numbered by band of positions, then block, then tile, so that a band's input stays
// in cache for all blocks, and a block's weights for all tiles of the band.
struct ConvItems {
  int64_t blocks;
  const int32_t* band;       // each one's first tile of positions; behind the last one's stands twice how many there are
  size_t end;                // positions: one behind the last pixel
};

// A convolution, brought to stride 1.
struct Conv : ConvItems {
  const ConvSegment* segments;
  const int32_t* first;      // [blocks + 1]: where each block's segments start
};

// A quant4_shift step on half dot products in 16-bit numbers: clip((half * multiplier + unit * offset) >> shift, -8, 7).
struct Quant4 {
  int16_t multiplier, offset, unit;
  int16_t shift;
};

// What a thread has for itself while a step runs: several chunks of items may want the same there.
struct ThreadRoom {
  int64_t* held;             // [3]: whose data it is, a tile's or a block's, -1 before the first; positions that are spread (words)
  uint8_t* data;
};

// What epilogues of binary convolutions are brought to.
struct BinaryCuts {
  // Where the epilogue is nothing but a threshold of one cut a channel, the bit is (dot / 2 > above) ^ flip; else null.
  const int16_t* above;      // [channels]
  const uint8_t* flip;       // [nibble planes]: a bit a channel
  // Where the epilogue is a quant4_shift that is stored, or added to another one for a threshold; else null.
  const Quant4* quant4;      // [channels]
};

// What half sums still lack. `valid`, of a position, is the number of its taps inside the image, times the channels of a sum: what
// twice the matches lose to become a dot product.
struct BinarySums : BinaryCuts {
  const int8_t* odd;         // [body]: valid % 2; null where valid is even everywhere
  const int32_t* valid32;    // [body]; null when sums fit 16 bits
};
// Blocks of kBinaryChannels, a segment for each group in it. Weights of a step: [pairs], two channels a byte. Positions of `base`
// are ordered by vectors of `binary_vector`: of each the even positions, then the odd ones.
struct BinaryConv : Conv, BinarySums {
  const int16_t* base;       // [body, rounded up to a vector]: -floor(valid / 2); zeros when sums need 32 bits
};

constexpr int32_t kWordsPixels = 8;  // that share the weights in registers
// The same by counting bits of words of 64 input channels, in one group: lanes are kBinaryChannels output channels, and only
// pixels are computed. A step is a word of a tap. Steps are taken in pairs, the last two being one: of each pair the second
// word is the exclusive or of itself and all before it, of weights and of inputs alike. The sums are even numbers' halves.
struct WordsConv : BinarySums {
  const uint64_t* words;     // body of the input's first plane; null where it is nibbles, which threads spread to words: so say the next
  const uint8_t* nibbles;    // body of the input's first plane, planes and bytes of a plane; a set of planes a slot
  size_t nibble_plane;
  int32_t planes;
  int64_t body;              // positions of the input's planes; what is before and behind them is `outside`, [words of a slot]
  const uint64_t* outside;
  int32_t slot_words, word_planes;  // the input as words: planes of a slot, and of all
  size_t word_plane;         // words from a plane to the next
  int64_t room;              // positions that a thread holds of them
  int64_t reach[2];          // of the taps, from a pixel: the first position, and one behind the last
  const int32_t* offset;     // [steps], in words
  const uint64_t* weights;   // [blocks of kBinaryChannels][steps][kBinaryChannels]
  const int32_t* pixel;      // positions of the input at pixels of the output, in their order
  // [pixels]: with cuts a pixel's place in its tile; else where its sums stand among the rows that are transposed. The rows of 32
  // even positions stand before those of the odd ones between them, the first of four eighths of either together, then the second.
  const uint8_t* place;
  const int32_t* start_at;   // [pixels]: what a pixel's mismatches are subtracted from, of the first channel
  const int16_t* start;      // [kinds of pixels][channels, rounded up to kBinaryChannels]
  const int64_t* cut;        // where there are cuts (`above`), as `start`: the bit is (mismatches < cut) ^ flip
  const int32_t* first;      // [tiles + 1]: each tile's first pixel
  int32_t steps, channels, blocks;
  int32_t ahead;             // lines of the next block's weights that are fetched with each few pixels
  int32_t tile;              // positions: kTile or kMaxTile, of the largest tiles
  const int32_t* position;   // [tiles + 1]: each tile's first; all are multiples of a vector
  // Where bits leave as words: body of the first plane and words of a plane, pixels' positions there, [pixels]. Tiles are then any
  // pixels, up to `tile` of them; `place`, `position` and the epilogue are not looked at. Else null.
  uint64_t* to;
  size_t to_plane;
  const int32_t* at;
  // Positions outside the image that readers look at, each tile's in a row, `first_gap` being [tiles + 1]; and what stands there, [planes].
  const int32_t *gap, *first_gap;
  const uint64_t* halo;
};

// The same by matrix tiles, in one group. A step is a tap and up to 16 planes of the input, which a tile's rows are; `chunks` steps
// of `rows` planes are all of them, and more: weights of the planes beyond are 0. Weights: [blocks of kTileChannels][taps][chunks]
// [kTileChannels], a bit an input channel, those of the first plane lowest.
struct TileConv : BinaryCuts {
  const uint8_t* nibbles;    // body of the input's first plane, planes and bytes of a plane; a set of planes a slot
  size_t nibble_plane;
  int32_t planes;
  uint8_t* quads;            // the input spread to four bytes a position: body, bytes of a plane, planes of a slot
  size_t quad_plane;
  int32_t slot_planes;
  size_t margin, positions;  // of a plane: before the body, and all
  const int32_t* offset;     // [taps], in bytes of the spread input
  const uint64_t* weights;
  uint64_t whole, last;      // bits that are weights: of a chunk, and of the last one
  int32_t taps, chunks, rows;
  int32_t taps_a_strip;      // whose weights are spread together
  int32_t channels;
  size_t end;                // positions: one behind the last pixel
};
// An 8-bit convolution by matrix tiles, in one group: the steps that a tile of positions reads are first gathered one behind the
// other, for the weights of all blocks. A chunk is 16 steps of four bytes; the last one's weights of no step are 0.
struct TileQ8Conv {
  const uint8_t* input;      // body of the first plane
  const int32_t* offset;     // [steps] in bytes
  const int8_t* weights;     // [blocks of kTileChannels][chunks][kTileChannels][64]
  const int32_t* correction; // [channels], as Q8Conv's
  int32_t steps, chunks, channels;
  size_t end;                // positions: one behind the last pixel
};
constexpr int kTileChannels = 32;
constexpr int kTilePlanes = 16;

// Steps of a segment that are summed in 16 bits before they widen, where an instruction set does so (pack_q8): so many runs
// of each length, the longest first.
constexpr int kMaxRun = 4;
struct Q8Runs {
  int32_t count[kMaxRun + 1];  // by length
};

// Blocks of kQ8Channels, one segment each; it reads the planes of all groups in it, with weights of 0 where channel
// and group differ. Weights, for each q8_pack channels of a block one behind the other: [steps][q8_pack][quad_bytes], and
// so the offsets of the steps, whose number and order may differ.
struct Q8Conv : Conv {
  const int32_t* correction; // [channels]: zero_point * sum of the channel's weights, subtracted
  const Q8Runs* runs;        // [blocks][kQ8Channels / q8_pack]
};

// Convolutions of small maps and linear layers, where pixels would leave most lanes empty: lanes are output channels. All
// positions lie in one tile of kTile. Weights of a block of lanes: [steps][bytes as the kernel packs them].
struct OutputsConv {
  const uint8_t* input;      // body of the first plane
  const int32_t* offset;     // [steps] in bytes
  const uint8_t* weights;
  const int32_t* pixel;      // [pixels]: the positions that are pixels
  const int32_t* subtract;   // binary: [pixels], valid taps times channels; others: [channels], as Q8Conv::correction
  int32_t steps, pixels, channels;
};

// What a channel's sum so far is shifted to the left by, and how many taps are then added to it, and taken from it. Sums of
// bytes begin anew behind each run that has a `total`: what was summed till then is added to the whole sum, which is first
// shifted by so much; -1 where sums go on.
struct ShiftRun {
  int32_t shift, add, subtract, total;
};
constexpr int kShiftTaps = 128;  // bytes, each times the power of two it is shifted by later, whose sum fits 16 bits

// A convolution without multiplications, of planes of bytes, or 16- or 32-bit numbers: weights are sums of signed powers of two,
// and all taps of a power are added before the next lower one's. Blocks of kBinaryChannels.
struct ShiftConv : ConvItems {
  const uint8_t* input;         // body of the first plane
  const ShiftRun* runs;
  const int32_t* offset;        // of the runs' taps, in bytes
  const size_t* first_run;      // [channels + 1]
  const size_t* first_offset;   // [channels]
  const int32_t* subtract;      // [channels]: zero_point * sum of the channel's weights
  int32_t channels;
  int32_t element;              // bytes of a number: 1, 2 or 4
};

// The same of 16-bit planes where all weights are -1 and +1. Blocks of kSignsChannels.
struct SignsConv : ConvItems {
  const uint8_t* input;         // body of the first plane
  const int32_t* offset;        // [steps] in bytes
  const uint8_t* patterns;      // [channels][fours]: bit k is 1 where the weight of step 4 * four + k is +1
  int32_t steps, fours, channels;
};
constexpr int kSignsChannels = 64;  // a multiple of 4, as kBinaryChannels

// The same with output channels as lanes, for maps of a few pixels: the bits of the weights select what is added. A word of 32
// bits holds, for one output and one bit of the weights, fields of shift_index_bits steps, the first in the lowest bits; where
// these are fields of one bit, the first is the highest. Weights: [blocks of shift_outputs][words][8 bits][shift_outputs].
struct ShiftOutputsConv : OutputsConv {
  int32_t element;
};

// Work on rows: an item is a band of `band_rows` rows of a plane's result, counted through all its images.
struct RowWork {
  const Geometry* in;
  const Geometry* out;
  const uint8_t* src;          // body
  uint8_t* dst;
  size_t src_plane, dst_plane; // bytes
  int32_t band_rows;
  int32_t planes;              // of the result
  uint8_t halo, last_halo;     // bits: byte outside the image
};

struct Pool : RowWork {
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int32_t channels;
  const uint8_t* flip;         // bits: per nibble plane, or null
  uint8_t* scratch;            // a thread: one input row with all that windows reach beside it
  int32_t scratch_width;       // positions of it
  int32_t include_pad;         // average: taps in the padding count
  int32_t shift;               // average of i16: the window has 2^shift taps
  const int32_t* column_taps;  // average: [out.width] that count in a row of the window; null where all windows are whole
  const int32_t* tap_columns;  // average: [kernel_w][2]: the first column whose tap lies inside the image, and one behind the last
  int32_t take_max;            // adaptive
};

// Where the rows or the columns of a resized map read: `from`, and in bilinear mode also `next`.
struct Axis {
  const int32_t* from;
  const int32_t* next;
  const float* from_weight;
  const float* next_weight;
};

struct Resize : RowWork {
  Axis rows, columns;
};

struct Shuffle : RowWork {
  int32_t factor;
  int32_t channels;  // of the result
};

// Where the four channels of a nibble plane come from: bit `shift[k]` of plane `source[k]`, null for a channel that only
// pads the plane. Where all of them are one plane's bits in their places, `mask` holds the bits to keep, else 0.
struct BitSources {
  const uint8_t* source[4];
  uint8_t shift[4];
  uint8_t mask;
};

// Channels of maps of one geometry, put in another order. Items: (plane of the result) * tiles + tile of kMoveTile positions.
struct ChannelMove {
  const Geometry* geometry;
  const uint8_t* const* sources;  // f32 and i16: a plane for each of the result
  const BitSources* bit_sources;  // bits: for each plane of the result
  uint8_t* dst;
  size_t dst_plane;
  int32_t planes;
  uint8_t halo, last_halo;
};
constexpr int kMoveTile = 4096;  // a multiple of kTile

// One instruction set's kernels. Ranges [begin, end) count work items; what an item is, each line says.
struct KernelTable {
  const char* isa;
  int32_t binary_vector;     // positions that binary_conv computes at once
  int32_t q8_quad_bytes;     // bytes that pack_q8 writes for four weights
  int32_t q8_pack;           // output channels that pack_q8 packs, a divisor of kQ8Channels
  // item: a tile of kMaxTile positions of a block of output channels, numbered as Conv says
  void (*binary_conv)(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
  // item: the same with tiles of kTile positions
  void (*q8_conv)(const Q8Conv&, const Epilogue&, int64_t begin, int64_t end);
  // Packs weights [steps][q8_pack][4] for q8_conv: in an order of its own, some steps twice with parts of their weights.
  // `order` receives the step that each packed one reads. Returns their number, at most 2 * steps.
  int32_t (*pack_q8)(const int8_t* weights, int32_t steps, uint8_t* packed, int32_t* order, Q8Runs* runs);
  // The same without a multiplication, where the epilogue's steps are integer ones that do without too.
  void (*binary_conv_integer)(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
  // item: a tile of kMaxTile positions of a block of output channels, numbered as Conv says
  void (*conv_shift)(const ShiftConv&, const Epilogue&, int64_t begin, int64_t end);
  void (*conv_signs)(const SignsConv&, const Epilogue&, int64_t begin, int64_t end);
  // item: a block of binary_outputs, q8_outputs, shift_outputs channels
  int32_t binary_outputs, q8_outputs, shift_outputs;
  int32_t shift_index_bits;  // of ShiftOutputsConv's words
  void (*binary_outputs_conv)(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
  void (*binary_outputs_conv_integer)(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
  void (*q8_outputs_conv)(const OutputsConv&, const Epilogue&, int64_t begin, int64_t end);
  void (*conv_shift_outputs)(const ShiftOutputsConv&, const Epilogue&, int64_t begin, int64_t end);
  // Packs four weights of each channel of a block, [q8_outputs][4] as int8, into 4 * q8_outputs bytes.
  void (*pack_q8_outputs)(const int8_t* weights, uint8_t* packed);
  // A caller's image [N, C, H, W] to a map of 8-bit numbers by the epilogue's only step, its halo between rows and images
  // too. item: (block of 4 channels) * (rows of all images, with halo) + row
  void (*import_quads)(const float* src, const Geometry&, const Epilogue&, int64_t begin, int64_t end);
  // item: (block of 4 channels) * tiles + tile
  void (*pointwise)(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
                    int64_t end);
  void (*pointwise_b1)(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
                       int64_t end);
  void (*pointwise_i16)(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
                        int64_t end);
  // item: a band of rows (RowWork)
  void (*max_pool_f32)(const Pool&, int64_t begin, int64_t end);
  void (*max_pool_b1)(const Pool&, int64_t begin, int64_t end);
  void (*max_pool_i16)(const Pool&, int64_t begin, int64_t end);
  void (*avg_pool_f32)(const Pool&, int64_t begin, int64_t end);
  void (*avg_pool_i16)(const Pool&, int64_t begin, int64_t end);
  void (*adaptive_pool_f32)(const Pool&, int64_t begin, int64_t end);
  // item: channel (f32, i16), nibble plane (bits)
  void (*global_pool_f32)(const Pool&, int64_t begin, int64_t end);
  void (*global_pool_b1)(const Pool&, int64_t begin, int64_t end);
  void (*global_sum_i16)(const Pool&, int64_t begin, int64_t end);
  // item: a tile of a plane (ChannelMove)
  void (*channels_f32)(const ChannelMove&, int64_t begin, int64_t end);
  void (*channels_b1)(const ChannelMove&, int64_t begin, int64_t end);
  void (*channels_i16)(const ChannelMove&, int64_t begin, int64_t end);
  // item: a band of rows (RowWork)
  void (*nearest_f32)(const Resize&, int64_t begin, int64_t end);
  void (*nearest_b1)(const Resize&, int64_t begin, int64_t end);
  void (*bilinear_f32)(const Resize&, int64_t begin, int64_t end);
  void (*pixel_shuffle_f32)(const Shuffle&, int64_t begin, int64_t end);
  void (*pixel_shuffle_b1)(const Shuffle&, int64_t begin, int64_t end);
  // What engine/peak times: rounds of paired look-ups and of 8-bit dot products, the multiply-accumulates of a round, and
  // a copy of a multiple of kPeakBlock bytes. The rounds return what their counters hold in the end: the
  // multiply-accumulates done, of look-ups while bytes hold them (kPeakExactRounds).
  int64_t (*peak_look_ups)(int64_t rounds);
  int64_t (*peak_dots)(int64_t rounds);
  int64_t peak_look_up_macs, peak_dot_macs;
  void (*peak_copy)(uint8_t* to, const uint8_t* from, size_t bytes);
  // Null where the instruction set has no matrix tiles. Items: a plane of a slot; (block of kTileChannels) * tiles + tile of
  // kMaxTile positions. A thread's room, taps_a_strip * chunks * kTileChannels * 64 bytes, holds a block's spread weights.
  void (*tile_spread)(const TileConv&, int64_t begin, int64_t end);
  void (*tile_conv)(const TileConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
  // Item: a tile of kMaxTile positions, of all channels. `gathered` has room for chunks * 16 * kMaxTile * 4 bytes.
  void (*tile_q8_conv)(const TileQ8Conv&, const Epilogue&, uint8_t* gathered, int64_t begin, int64_t end);
  int64_t (*peak_tiles)(int64_t rounds);  // as peak_dots
  int64_t peak_tile_macs;
  // Null where the instruction set counts no bits. Item: tile * blocks + block of kBinaryChannels. A thread's room holds a tile's
  // gathered pixels, tile * steps words, and where the input is nibbles word_planes * word_plane words of it.
  void (*words_conv)(const WordsConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
  void (*words_conv_integer)(const WordsConv&, const Epilogue&, const ThreadRoom&, int64_t begin, int64_t end);
  int64_t (*peak_words)(int64_t rounds);  // as peak_dots
  int64_t peak_word_macs;
};
constexpr int kPeakBlock = 256;
constexpr int kPeakExactRounds = 16;

// matches(w0, x) | matches(w1, x) << 4 for two 4-bit weights w0 | w1 << 4 and a 4-bit activation x.
struct PairTable {
  alignas(64) uint8_t entry[256][16];
};
extern const PairTable kPairTable;

// matches(x, w) for two 4-bit numbers.
struct MatchTable {
  alignas(64) uint8_t entry[16][16];
};
extern const MatchTable kMatchTable;

// Sixteen times the byte that keeps a nibble's channels of a mask, and kOutside.
struct MaskTable {
  alignas(64) uint8_t entry[16][16];
};
extern const MaskTable kMaskTable;

const KernelTable* scalar_kernels();
const KernelTable* avx2_kernels();    // null where the build has none, as are the next ones
const KernelTable* avx512_kernels();
const KernelTable* avx512_popcnt_kernels();  // avx512's, and words of bits
const KernelTable* amx_kernels();     // these, and matrix tiles
const KernelTable* neon_kernels();
const KernelTable* neon_dot_kernels();

}  // namespace signbit
