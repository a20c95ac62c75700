// Binary convolution by counting bits: lanes are output channels, and a word of 64 input channels of a pixel is compared with
// eight channels' weights at once.
//
// Mismatches are the ones of `input ^ weights`, summed over the steps of a pixel. Two words and the sum bit of all before them go
// through full adders, and only the carries are counted, one vector of two. What makes that cheap is that the sum bit of all words so
// far is the exclusive or of all inputs and all weights so far, both known beforehand: of two words the first is compared as it is
// (`word`), the second together with all before it (`sum`), and the carry of the adder follows from the two and the sum before them.
// So a vector of 512 matches costs two and a half instructions.
//
// A tile's pixels are first gathered, a few at a time, as the steps want them. Sums leave a pixel a row; rows stand so
// (WordsConv::place) that transposing them gives what `sums.h` wants: of a vector of positions the even ones first.
#include "../../simd/simd.h"
#include "../declare.h"
#include "sums.h"

namespace signbit {
namespace SIGNBIT_NS {

// Pixels that share the weights in registers: as many as possible, then fewer, then one by one.
constexpr int kMany = kWordsPixels, kFew = 4;

// The input's nibbles from position `begin` to `end`, both multiples of a vector, as words that begin at `to`.
static void spread(const WordsConv& c, int64_t begin, int64_t end, uint64_t* to) {
  for (int32_t plane = 0; plane < c.word_planes; plane++, to += c.word_plane) {
    const int32_t word = plane % c.slot_words, slot = plane / c.slot_words, first = 16 * word;
    const int count = c.planes - first < 16 ? c.planes - first : 16;
    const uint8_t* from = c.nibbles + size_t(slot * c.planes + first) * c.nibble_plane;
    for (int64_t i = begin; i < end; i += kBytes)
      if (i >= 0 && i < c.body)
        spread_words(from + i, c.nibble_plane, count, to + (i - begin));
      else
        for (int j = 0; j < kBytes; j++) to[i - begin + j] = c.outside[word];
  }
}

// Spreads what a tile's pixels read and the thread has not spread yet: `held` are the first position that its `words` hold, and one behind
// the last. Tiles follow one another: what is held grows until there is no room for more.
static void spread_for(const WordsConv& c, int32_t pixel, int32_t last, uint64_t* words, int64_t* held) {
  const int64_t begin = (c.pixel[pixel] + c.reach[0]) & -int64_t(kBytes);
  const int64_t end = (c.pixel[last - 1] + c.reach[1] + kBytes - 1) & -int64_t(kBytes);
  if (begin < held[0] || begin > held[1] || end - held[0] > c.room) held[0] = held[1] = begin;
  if (end <= held[1]) return;
  spread(c, held[1], end, words + (held[1] - held[0]));
  held[1] = end;
}

// A word of each of some pixels: of neighbours, of as many anywhere, of one.
typedef uint64_t Eight __attribute__((vector_size(8 * kMany)));
typedef uint64_t Four __attribute__((vector_size(8 * kFew)));
template <typename Vector>
struct Neighbours {
  typedef Vector Words;
  const uint64_t* from;
  __attribute__((always_inline)) Words load(int32_t offset) const {
    Words x;
    memcpy(&x, from + offset, sizeof x);
    return x;
  }
};
template <typename Vector>
struct Strangers {
  typedef Vector Words;
  static constexpr int kCount = sizeof(Words) / sizeof(uint64_t);
  const uint64_t* from[kCount];
  __attribute__((always_inline)) Words load(int32_t offset) const {
    Words x = {};
    for (int i = 0; i < kCount; i++) x[i] = from[i][offset];
    return x;
  }
};
struct Single {
  typedef uint64_t Words;
  const uint64_t* from;
  __attribute__((always_inline)) Words load(int32_t offset) const { return from[offset]; }
};

// The words of some pixels as the steps want them: see WordsConv.
template <typename Pixels>
static inline void gather(const WordsConv& c, const Pixels& pixels, uint64_t* to) {
  typedef typename Pixels::Words Words;
  Words sum = {};
  const auto put = [&](const Words& x) __attribute__((always_inline)) {
    memcpy(to, &x, sizeof x);
    to += sizeof x / sizeof *to;
  };
  int k = 0;
  if (c.steps % 2) put(sum = pixels.load(c.offset[k++]));
  for (; k < c.steps; k += 2) {
    const Words word = pixels.load(c.offset[k]);
    sum ^= word ^ pixels.load(c.offset[k + 1]);
    put(word);
    put(sum);
  }
}

template <typename Words>
static inline void gather_groups(const WordsConv& c, const uint64_t* words, int32_t& first, int32_t end, uint64_t*& to) {
  constexpr int kCount = Strangers<Words>::kCount;
  for (; end - first >= kCount; first += kCount, to += kCount * c.steps) {
    const int32_t* pixel = c.pixel + first;
    if (pixel[kCount - 1] == pixel[0] + kCount - 1) {
      gather(c, Neighbours<Words>{words + pixel[0]}, to);
    } else {
      Strangers<Words> pixels;
      for (int i = 0; i < kCount; i++) pixels.from[i] = words + pixel[i];
      gather(c, pixels, to);
    }
  }
}

static void gather_tile(const WordsConv& c, const uint64_t* words, int32_t first, int32_t end, uint64_t* to) {
  gather_groups<Eight>(c, words, first, end, to);
  gather_groups<Four>(c, words, first, end, to);
  for (; first < end; first++, to += c.steps) gather(c, Single{words + c.pixel[first]}, to);
}

template <int N, bool kOdd>
static inline __attribute__((always_inline)) void count_mismatches(const uint64_t* x, const uint64_t* w, int pairs, Bytes* counts) {
  BitSums bits[N];
  for (int i = 0; i < N; i++) bits[i] = no_bits();
  if (kOdd) {
    const Bytes sum = load_words64(w);
    for (int i = 0; i < N; i++) bits[i].ones = xor_splat(sum, x + i);
    x += N;
    w += kBinaryChannels;
  }
  for (int pair = 0; pair < pairs; pair++, x += 2 * N, w += 2 * kBinaryChannels) {
    const Bytes word = load_words64(w), sum = load_words64(w + kBinaryChannels);
    for (int i = 0; i < N; i++) add_two(bits[i], xor_splat(word, x + i), xor_splat(sum, x + N + i));
  }
  for (int i = 0; i < N; i++) counts[i] = count_all(bits[i]);
}

typedef int16_t Rows[kMaxTile][kBinaryChannels];

// What becomes of a pixel's mismatches with a block of channels: half sums, a row a pixel; or bits, a byte of a word or of a position.
struct ToRows {
  Rows& rows;
  const uint8_t* place;
  const int32_t* start_at;
  const int16_t* start;
  __attribute__((always_inline)) void operator()(int32_t pixel, Bytes counts) const {
    subtract_counts(rows[place[pixel]], start + start_at[pixel], counts);
  }
};
struct ToWords {
  uint8_t* bytes;  // of the first position
  uint8_t flip;
  const int32_t* at;
  const int32_t* start_at;
  const int64_t* cut;
  __attribute__((always_inline)) void operator()(int32_t pixel, Bytes counts) const {
    bytes[int64_t(at[pixel]) * int64_t(sizeof(uint64_t))] = uint8_t(below(counts, cut + start_at[pixel]) ^ flip);
  }
};
struct ToBits {
  uint8_t* bits;
  const uint8_t* place;
  const int32_t* start_at;
  const int64_t* cut;
  __attribute__((always_inline)) void operator()(int32_t pixel, Bytes counts) const {
    bits[place[pixel]] = below(counts, cut + start_at[pixel]);
  }
};

// Weights that are wanted next: each block's are read from its beginning to its end again for each few pixels, so that only their
// first reading is from far away.
struct Ahead {
  const uint64_t *next, *end;
  int32_t lines;  // each time
  __attribute__((always_inline)) void fetch() {
    for (int32_t line = 0; line < lines && next < end; line++, next += kBinaryChannels) __builtin_prefetch(next);
  }
};

template <int N, bool kOdd, typename Take>
static inline __attribute__((always_inline)) void count_groups(const WordsConv& c, int32_t& pixel, int32_t end, const uint64_t*& x,
                                                               const uint64_t* w, Ahead& ahead, Take take) {
  const int pairs = c.steps / 2;
  for (; end - pixel >= N; pixel += N, x += N * c.steps) {
    ahead.fetch();
    Bytes counts[N];
    count_mismatches<N, kOdd>(x, w, pairs, counts);
    for (int i = 0; i < N; i++) take(pixel + i, counts[i]);
  }
}

// The mismatches of a block of channels with a tile's pixels; meanwhile the next block's weights are fetched.
template <bool kOdd, typename Take>
static __attribute__((noinline)) void count_pixels(const WordsConv& c, int32_t pixel, int32_t end, int64_t block, const uint64_t* x,
                                                   Take take) {
  const size_t block_words = size_t(c.steps) * kBinaryChannels;
  const uint64_t* next = c.weights + size_t(block + 1 < c.blocks ? block + 1 : 0) * block_words;
  Ahead ahead = {next, next + block_words, c.ahead};
  const uint64_t* w = c.weights + size_t(block) * block_words;
  count_groups<kMany, kOdd>(c, pixel, end, x, w, ahead, take);
  count_groups<kFew, kOdd>(c, pixel, end, x, w, ahead, take);
  count_groups<1, kOdd>(c, pixel, end, x, w, ahead, take);
}

template <typename Take>
static inline void count_block(const WordsConv& c, int32_t pixel, int32_t end, int64_t block, const uint64_t* x, Take take) {
  if (c.steps % 2)
    count_pixels<true>(c, pixel, end, block, x, take);
  else
    count_pixels<false>(c, pixel, end, block, x, take);
}

// `work(first pixel, one behind the last, their words, block, tile)` for each item.
template <typename Work>
static inline void for_items(const WordsConv& c, const ThreadRoom& room, int64_t begin, int64_t end, Work work) {
  uint64_t *const gathered = reinterpret_cast<uint64_t*>(room.data), *const words = gathered + size_t(c.tile) * size_t(c.steps);
  for (int64_t item = begin; item < end; item++) {
    const int64_t tile = item / c.blocks, block = item % c.blocks;
    const int32_t pixel = c.first[tile], last = c.first[tile + 1];
    if (*room.held != tile && pixel < last) {
      if (!c.words) spread_for(c, pixel, last, words, room.held + 1);
      gather_tile(c, c.words ? c.words : words - room.held[1], pixel, last, gathered);
    }
    *room.held = tile;
    work(pixel, last, gathered, block, tile);
  }
}

// Of an item whose tile is positions.
struct TileOf {
  int first, channels;
  size_t position;
  int vectors;
  TileOf(const WordsConv& c, int64_t block, int64_t tile) : first(int(block) * kBinaryChannels), position(size_t(c.position[tile])) {
    channels = c.channels - first < kBinaryChannels ? c.channels - first : kBinaryChannels;
    vectors = (c.position[tile + 1] - c.position[tile]) / kBytes;
  }
};

// `finish(first channel, channels, position, sums, vectors)` for each item.
template <typename Finish>
static inline void for_sums(const WordsConv& c, const ThreadRoom& room, int64_t begin, int64_t end, Finish finish) {
  alignas(64) Rows rows = {};  // those of no pixel are computed with, whatever they hold
  alignas(64) int16_t out[kBinaryChannels][kMaxTile];
  for_items(c, room, begin, end,
            [&](int32_t pixel, int32_t last, const uint64_t* words, int64_t block, int64_t tile) {
              const TileOf t(c, block, tile);
              count_block(c, pixel, last, block, words, ToRows{rows, c.place, c.start_at, c.start + block * kBinaryChannels});
              for (int half = 0; half < 2 * t.vectors; half++) {
                int16_t* columns[kBinaryChannels];
                for (int j = 0; j < kBinaryChannels; j++) columns[j] = out[j] + half * (kBytes / 2);
                transpose_rows(rows[half * (kBytes / 2)], columns);
              }
              finish(t.first, t.channels, t.position, out, t.vectors);
            });
}

// The whole epilogue is a threshold of one cut.
static void write_compared(const WordsConv& c, const Epilogue& e, const ThreadRoom& room, int64_t begin, int64_t end) {
  const EpilogueStep& step = e.steps[0];
  alignas(64) uint8_t bits[kMaxTile] = {};
  for_items(c, room, begin, end,
            [&](int32_t pixel, int32_t last, const uint64_t* words, int64_t block, int64_t tile) {
              const TileOf t(c, block, tile);
              claim_nibbles(e, t.first, t.channels, t.position, t.vectors);
              count_block(c, pixel, last, block, words, ToBits{bits, c.place, c.start_at, c.cut + block * kBinaryChannels});
              for (int plane = t.first / 4; plane <= (t.first + t.channels - 1) / 4; plane++) {
                uint8_t* dst = step.data + size_t(plane) * step.plane + t.position;
                const Bytes flip = all_bytes(c.flip[plane]);
                const Bytes halo = all_bytes(plane == (e.channels - 1) / 4 ? step.last_halo : step.halo);
                for (int i = 0; i < t.vectors; i++) {
                  const Bytes both = load_bytes(bits + i * kBytes), nibble = plane % 2 ? high_fields(both) : low_fields(both);
                  store_bytes(dst + i * kBytes, select_bytes(load_bytes(e.outside + t.position + size_t(i) * kBytes), halo,
                                                             xor_bytes(nibble, flip)));
                }
              }
            });
}

// The same, and the map that is written lies as words: a block's bits are a byte of each.
static void write_words(const WordsConv& c, const ThreadRoom& room, int64_t begin, int64_t end) {
  constexpr int kBytesOfWord = sizeof(uint64_t);
  for_items(c, room, begin, end,
            [&](int32_t pixel, int32_t last, const uint64_t* words, int64_t block, int64_t tile) {
              uint64_t* const plane = c.to + size_t(block / kBytesOfWord) * c.to_plane;
              uint8_t* const bytes = reinterpret_cast<uint8_t*>(plane) + block % kBytesOfWord;
              constexpr int64_t kInLine = kBytes / kBytesOfWord;
              for (int64_t p = c.at[pixel] & -kInLine; p <= c.at[last - 1]; p += kInLine) claim_line(plane + p);
              const uint8_t flip = uint8_t(c.flip[2 * block] | (8 * block + 4 < c.channels ? c.flip[2 * block + 1] << 4 : 0));
              count_block(c, pixel, last, block, words, ToWords{bytes, flip, c.at, c.start_at, c.cut + block * kBinaryChannels});
              if (block + 1 == c.blocks)  // channels that there are not are 0
                for (int byte = 1; byte < kBytesOfWord - block % kBytesOfWord; byte++)
                  for (int32_t i = pixel; i < last; i++) bytes[int64_t(c.at[i]) * kBytesOfWord + byte] = 0;
              if (block % kBytesOfWord == 0)
                for (int32_t i = c.first_gap[tile]; i < c.first_gap[tile + 1]; i++) plane[c.gap[i]] = c.halo[block / kBytesOfWord];
            });
}

void words_conv(const WordsConv& c, const Epilogue& e, const ThreadRoom& room, int64_t begin, int64_t end) {
  if (c.to) return write_words(c, room, begin, end);
  if (c.above) return write_compared(c, e, room, begin, end);
  for_sums(c, room, begin, end, [&](int first, int channels, size_t position, const Sums* sums, int vectors) {
    finish_sums(c, e, first, channels, position, sums, vectors);
  });
}

void words_conv_integer(const WordsConv& c, const Epilogue& e, const ThreadRoom& room, int64_t begin, int64_t end) {
  if (c.to) return write_words(c, room, begin, end);
  if (c.above) return write_compared(c, e, room, begin, end);
  for_sums(c, room, begin, end, [&](int first, int channels, size_t position, const Sums* sums, int vectors) {
    finish_sums_integer(c, e, first, channels, position, sums, vectors);
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
