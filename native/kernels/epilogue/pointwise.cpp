// An epilogue over a map that no convolution produced: real values, bits as -1 and +1, or 16-bit integers.
#include "../../simd/simd.h"
#include "../declare.h"
#include "integer.h"

namespace signbit {
namespace SIGNBIT_NS {

// 1 in each of the lowest `channels` bytes.
static inline uint32_t ones_of(int channels) { return 0x01010101u >> 8 * (4 - channels); }

// Items: (block of 4 channels) * tiles + tile; `run(first channel, first position, one behind the last)` for each.
template <typename Run>
static inline void for_tiles(size_t body, const Epilogue& e, int64_t begin, int64_t end, Run run) {
  const int64_t tiles = int64_t(body / kTile);
  for (int64_t item = begin; item < end; item++) {
    const size_t start = size_t(item % tiles) * kTile;
    run(int(item / tiles) * 4, start, e.end - start < kTile ? e.end : start + kTile);
  }
}

// `run(channel, position, blocks)` for each.
template <typename Run>
static inline void for_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Run run) {
  for_tiles(body, e, begin, end, [&](int first, size_t start, size_t stop) __attribute__((always_inline)) {
    const int last = first + 4 < e.channels ? first + 4 : e.channels;
    for (int channel = first; channel < last; channel++) run(channel, start, int((stop - start + kBytes - 1) / kBytes));
  });
}

// `load(channel, position)` fetches a block of a channel.
template <typename Load>
static inline void run_items(size_t body, const Epilogue& e, int64_t begin, int64_t end, Load load) {
  for_items(body, e, begin, end, [&](int channel, size_t p, int blocks) __attribute__((always_inline)) {
    run_epilogue(e, channel, p, blocks,
                 [&](int i) __attribute__((always_inline)) { return load(channel, p + size_t(i) * kBytes); });
  });
}

// Nothing but numbers of 8 bits: `quads(first channel, channels, position, outside)` gives a block of dwords, each of four
// channels, of which those that are there may be other than 0.
template <typename Quads>
static inline void run_quads(size_t body, const Epilogue& e, int64_t begin, int64_t end, Quads quads) {
  const EpilogueStep& s = e.steps[0];
  for_tiles(body, e, begin, end, [&](int first, size_t start, size_t stop) __attribute__((always_inline)) {
    const int channels = e.channels - first < 4 ? e.channels - first : 4;
    const int32_t halo = int32_t(s.halo * ones_of(channels));
    int32_t* dst = reinterpret_cast<int32_t*>(s.data + size_t(first / 4) * s.plane);
    for (size_t p = start; p < stop; p += kBytes) {
      const IntBlock outside = load_int8(reinterpret_cast<const int8_t*>(e.outside + p));
      IntBlock block = quads(first, channels, p, outside);
      for (int i = 0; i < 4; i++) block.v[i] = (block.v[i] & ~outside.v[i]) | (halo & outside.v[i]);
      store_ints(dst + p, block);
    }
  });
}

static void quantise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin, int64_t end) {
  const EpilogueStep& s = e.steps[0];
  run_quads(body, e, begin, end, [&](int first, int channels, size_t p, const IntBlock& outside) __attribute__((always_inline)) {
    IntBlock block;
    for (int i = 0; i < 4; i++) {
      block.v[i] = all_ints(0);
      for (int k = 0; k < channels; k++) {
        const float* from = reinterpret_cast<const float*>(src + size_t(first + k) * src_plane) + p;
        // What stands outside the image may be a denormal number, and slow.
        const Floats x = Floats(Ints(floats_at(from + i * kInts)) & ~outside.v[i]);
        block.v[i] |= quantised8(s, x) << (8 * k);
      }
    }
    return block;
  });
}

void import_quads(const float* src, const Geometry& g, const Epilogue& e, int64_t begin, int64_t end) {
  const EpilogueStep& s = e.steps[0];
  const int64_t rows = int64_t(g.batch) * g.image_rows;
  const size_t row = size_t(g.width), image = size_t(g.height) * row;
  const int32_t halo = int32_t(s.halo * 0x01010101u);
  for (int64_t item = begin; item < end; item++) {
    const int first = int(item / rows) * 4, channels = e.channels - first < 4 ? e.channels - first : 4;
    const int n = int(item % rows) / g.image_rows, y = int(item % rows) % g.image_rows;
    int32_t* dst = reinterpret_cast<int32_t*>(s.data + size_t(first / 4) * s.plane) + size_t(item % rows) * size_t(g.row_stride);
    const int pixels = y < g.height ? g.width : 0;
    for (int x = pixels; x < g.row_stride; x++) dst[x] = halo;
    const float* from = src + size_t(n * e.channels + first) * image + size_t(y) * row;
    for (int x = 0; x < pixels; x += kInts) {
      const int left = pixels - x;
      Ints quads = all_ints(0);
      for (int k = 0; k < channels; k++) {
        Floats pixel = all_floats(0.0f);
        if (left < kInts)
          memcpy(&pixel, from + size_t(k) * image + x, size_t(left) * sizeof(float));
        else
          pixel = floats_at(from + size_t(k) * image + x);
        quads |= quantised8(s, pixel) << (8 * k);
      }
      memcpy(dst + x, &quads, left < kInts ? size_t(left) * sizeof(int32_t) : sizeof quads);
    }
  }
}

void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
               int64_t end) {
  if (e.count == 1 && e.steps[0].code == StepCode::kQuant8) return quantise(src, src_plane, body, e, begin, end);
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    return load_floats(reinterpret_cast<const float*>(src + size_t(channel) * src_plane) + p);
  });
}

// The same of bits, which become one of two numbers.
static void quantise_bits(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                          int64_t end) {
  const EpilogueStep& s = e.steps[0];
  const uint32_t minus = uint32_t(quantised8(s, all_floats(-1.0f))[0]), plus = uint32_t(quantised8(s, all_floats(1.0f))[0]);
  const int32_t change = int32_t(minus ^ plus);
  run_quads(body, e, begin, end, [&](int first, int channels, size_t p, const IntBlock&) __attribute__((always_inline)) {
    const int32_t ones = int32_t(ones_of(channels)), low = int32_t(minus * ones_of(channels));
    IntBlock block = load_int8(reinterpret_cast<const int8_t*>(src + size_t(first / 4) * src_plane + p));
    // Four copies, 7 bits apart: bit k of copy k is the lowest of byte k.
    for (int i = 0; i < 4; i++) block.v[i] = low ^ (((block.v[i] & 15) * 0x00204081) & ones) * change;
    return block;
  });
}

void pointwise_b1(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                  int64_t end) {
  if (e.count == 1 && e.steps[0].code == StepCode::kQuant8)
    return quantise_bits(src, src_plane, body, e, begin, end);
  run_items(body, e, begin, end, [=](int channel, size_t p) __attribute__((always_inline)) {
    IntBlock b = load_int8(reinterpret_cast<const int8_t*>(src + size_t(channel / 4) * src_plane + p));
    for (int j = 0; j < 4; j++) b.v[j] = 2 * ((b.v[j] >> (channel % 4)) & 1) - 1;
    return to_floats(b);
  });
}

void pointwise_i16(const uint8_t* src, size_t src_plane, size_t body, const Epilogue& e, int64_t begin,
                   int64_t end) {
  for_items(body, e, begin, end, [=, &e](int channel, size_t p, int blocks) __attribute__((always_inline)) {
    const int16_t* from = reinterpret_cast<const int16_t*>(src + size_t(channel) * src_plane) + p;
    if (e.narrow == 0) {
      ShortBlock tile[kTile / kBytes];
      for (int i = 0; i < blocks; i++) tile[i] = load_shorts(from + i * kBytes);
      return integer_steps_16(e, 0, channel, p, blocks, tile);
    }
    IntBlock tile[kTile / kBytes];
    for (int i = 0; i < blocks; i++) tile[i] = load_shorts_as_ints(from + i * kBytes);
    integer_steps(e, channel, p, blocks, tile);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
