// Pooling: rows of a channel (f32, i16) or of a nibble plane (four channels' bits a byte).
//
// Maxima are separable: first down the columns of a window into one row of scratch, which is contiguous,
// then across, with the stride. Both visit the window in the order of docs/numerics.md, column by column.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../rows.h"

namespace signbit {
namespace SIGNBIT_NS {

struct MaxF32 {
  typedef float T;
  static inline float start() { return -__builtin_inff(); }
  static inline float join(float m, float x) { return x > m ? x : m; }
};
struct MaxI16 {
  typedef int16_t T;
  static inline int16_t start() { return -32768; }
  static inline int16_t join(int16_t m, int16_t x) { return x > m ? x : m; }
};
struct OrBits {
  typedef uint8_t T;
  static inline uint8_t start() { return 0; }
  static inline uint8_t join(uint8_t m, uint8_t x) { return m | x; }
};

// Down the columns of one to three rows, from `columns` on or, where they are the first, from the start.
template <typename Op, int kRows, bool kFirst>
static inline void join_rows(const typename Op::T* const* rows, typename Op::T* __restrict columns, int width) {
  const typename Op::T *a = rows[0], *b = rows[kRows > 1 ? 1 : 0], *c = rows[kRows > 2 ? 2 : 0];
  for (int x = 0; x < width; x++) {
    typename Op::T m = Op::join(kFirst ? Op::start() : columns[x], a[x]);
    if (kRows > 1) m = Op::join(m, b[x]);
    if (kRows > 2) m = Op::join(m, c[x]);
    columns[x] = m;
  }
}

template <typename Op, bool kFirst>
static inline void join_some(const typename Op::T* const* rows, int count, typename Op::T* columns, int width) {
  if (count == 1) join_rows<Op, 1, kFirst>(rows, columns, width);
  if (count == 2) join_rows<Op, 2, kFirst>(rows, columns, width);
  if (count == 3) join_rows<Op, 3, kFirst>(rows, columns, width);
}

// Across the windows of one row, whose columns `scratch` holds. A kernel and a stride that the compiler knows make vectors.
template <typename Op, int kKernel, int kStride>
static inline void join_windows(const typename Op::T* __restrict scratch, typename Op::T* __restrict dst, int width) {
  for (int x = 0; x < width; x++) {
    typename Op::T m = Op::start();
    for (int kx = 0; kx < kKernel; kx++) m = Op::join(m, scratch[x * kStride + kx]);
    dst[x] = m;
  }
}

// GCC does not make vectors of the loop above for real numbers.
template <int kKernel>
static inline void join_windows_f32(const float* __restrict scratch, float* __restrict dst, int width) {
  static_assert(kKernel == 2 || kKernel == 3, "pairs, and one more");
  const auto join = [](Floats m, Floats x) { return x > m ? x : m; };
  int x = 0;
  for (; x + kInts < width; x += kInts) {
    const float* from = scratch + 2 * x;
    const Floats first = floats_at(from), second = floats_at(from + kInts);
    Floats m = join(all_floats(MaxF32::start()), evens(first, second));
    m = join(m, odds(first, second));
    if (kKernel == 3) m = join(m, evens(floats_at(from + 2), floats_at(from + 2 + kInts)));
    *reinterpret_cast<FloatsAnywhere*>(dst + x) = m;
  }
  join_windows<MaxF32, kKernel, 2>(scratch + 2 * x, dst + x, width - x);
}

static inline bool join_pairs(const float* scratch, float* dst, int width, int kernel) {
  if (kernel == 2) join_windows_f32<2>(scratch, dst, width);
  if (kernel == 3) join_windows_f32<3>(scratch, dst, width);
  return kernel == 2 || kernel == 3;
}
// Nor for bytes, two of which are a number here, at the first byte of a window or at its second. The last vector computes again
// what the one before has done of it.
template <int kKernel>
static inline void join_windows_bits(const uint8_t* __restrict scratch, uint8_t* __restrict dst, int width) {
  constexpr int kAtOnce = kBytes / 2;
  typedef uint8_t Half __attribute__((vector_size(kAtOnce), aligned(1), may_alias));
  if (width < kAtOnce) return join_windows<OrBits, kKernel, 2>(scratch, dst, width);
  for (int x = 0; x < width; x += kAtOnce) {
    if (x + kAtOnce > width) x = width - kAtOnce;
    const BytePairs last = byte_pairs_at(scratch + 2 * x + kKernel - 2);
    BytePairs joined = last | (last >> 8);
    if (kKernel == 3) joined |= byte_pairs_at(scratch + 2 * x);
    *reinterpret_cast<Half*>(dst + x) = __builtin_convertvector(joined & 0xFF, Half);
  }
}

static inline bool join_pairs(const uint8_t* scratch, uint8_t* dst, int width, int kernel) {
  if (kernel == 2) join_windows_bits<2>(scratch, dst, width);
  if (kernel == 3) join_windows_bits<3>(scratch, dst, width);
  return kernel == 2 || kernel == 3;
}

static inline bool join_pairs(const int16_t* scratch, int16_t* dst, int width, int kernel) {
  if (kernel == 2) join_windows<MaxI16, 2, 2>(scratch, dst, width);
  if (kernel == 3) join_windows<MaxI16, 3, 2>(scratch, dst, width);
  return kernel == 2 || kernel == 3;
}

template <typename Op>
static inline void join_columns(const Pool& pool, const typename Op::T* __restrict scratch, typename Op::T* __restrict dst) {
  const int width = pool.out->width, stride = pool.stride_w;
  const int kernel = pool.kernel_w, dilation = pool.dilation_w;
  if (dilation == 1 && stride == 2 && join_pairs(scratch, dst, width, kernel)) return;
  for (int x = 0; x < width; x++) dst[x] = Op::start();
  for (int kx = 0; kx < kernel; kx++) {
    const typename Op::T* __restrict from = scratch + kx * dilation;
    if (stride == 1)
      for (int x = 0; x < width; x++) dst[x] = Op::join(dst[x], from[x]);
    else
      for (int x = 0; x < width; x++) dst[x] = Op::join(dst[x], from[x * stride]);
  }
}

// One output row: scratch holds the input row's width plus what windows reach on both sides.
template <typename Op>
static void max_pool_row(const Pool& pool, int plane, int image, int y) {
  typedef typename Op::T T;
  const Geometry& in = *pool.in;
  T* __restrict scratch = reinterpret_cast<T*>(pool.scratch);
  const int reach = pool.scratch_width, width = in.width;  // not read again behind each byte that is written
  T* __restrict columns = scratch + pool.pad_w;
  const T* rows[3];
  int count = 0;
  bool first = true;
  auto join = [&] {
    if (first)
      join_some<Op, true>(rows, count, columns, width);
    else
      join_some<Op, false>(rows, count, columns, width);
    first = first && !count;
    count = 0;
  };
  for (int ky = 0; ky < pool.kernel_h; ky++) {
    const int iy = y * pool.stride_h - pool.pad_h + ky * pool.dilation_h;
    if (iy < 0 || iy >= in.height) continue;
    rows[count++] = source_row<T>(pool, size_t(plane), image, iy);
    if (count == 3) join();
  }
  join();
  for (int x = 0; x < (first ? reach : pool.pad_w); x++) scratch[x] = Op::start();
  for (int x = pool.pad_w + width; x < reach; x++) scratch[x] = Op::start();
  join_columns<Op>(pool, scratch, result_row<T>(pool, size_t(plane), image, y));
}

void max_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  for_rows(pool, begin, end, [&](int plane, int image, int y) { max_pool_row<MaxF32>(pool, plane, image, y); });
}

void max_pool_i16(const Pool& pool, int64_t begin, int64_t end) {
  for_rows(pool, begin, end, [&](int plane, int image, int y) { max_pool_row<MaxI16>(pool, plane, image, y); });
}

void max_pool_b1(const Pool& pool, int64_t begin, int64_t end) {
  for_rows(pool, begin, end, [&](int plane, int image, int y) {
    max_pool_row<OrBits>(pool, plane, image, y);
    const uint8_t flip = pool.flip ? pool.flip[plane] : uint8_t(0);
    uint8_t* row = result_row<uint8_t>(pool, size_t(plane), image, y);
    if (flip)
      for (int x = 0; x < pool.out->width; x++) row[x] ^= flip;
    close_row(pool, plane, image, y);
  });
}

// A tap of some windows side by side, at a stride that the compiler knows or, where it is 0, at `stride`.
template <int kStride>
static inline void add_tap(float* __restrict row, const float* __restrict from, int stride, int count) {
  if (kStride) stride = kStride;
  for (int x = 0; x < count; x++) row[x] += from[x * stride];
}

// Vectors of the instruction set, and of four numbers.
struct Widest {
  static constexpr int kAtOnce = kInts;
  static inline Floats at(const float* p) { return floats_at(p); }
  static inline void put(float* p, Floats x) { *reinterpret_cast<FloatsAnywhere*>(p) = x; }
  static inline Floats first(Floats x, Floats y) { return evens(x, y); }
  static inline Floats second(Floats x, Floats y) { return odds(x, y); }
};
struct Fours {
  typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kAtOnce = 4;
  static inline Four at(const float* p) { return *reinterpret_cast<const Four*>(p); }
  static inline void put(float* p, Four x) { *reinterpret_cast<Four*>(p) = x; }
  static inline Four first(Four x, Four y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6); }
  static inline Four second(Four x, Four y) { return __builtin_shufflevector(x, y, 1, 3, 5, 7); }
};

// Windows of 2x2 at stride 2, of which a row has as many as a vector numbers, at least: the last vector computes again what the one
// before has done of it.
template <typename V>
static inline void halve_some(const float* __restrict upper, const float* __restrict lower, float* __restrict row, int width) {
  for (int x = 0; x < width; x += V::kAtOnce) {
    if (x + V::kAtOnce > width) x = width - V::kAtOnce;
    const auto a = V::at(upper + 2 * x), b = V::at(upper + 2 * x + V::kAtOnce);
    const auto c = V::at(lower + 2 * x), d = V::at(lower + 2 * x + V::kAtOnce);
    V::put(row + x, (0.0f + V::first(a, b) + V::second(a, b) + V::first(c, d) + V::second(c, d)) * 0.25f);
  }
}

// None of the windows reaches over the image: one pass.
static void halve_row(const float* __restrict upper, const float* __restrict lower, float* __restrict row, int width) {
  if (width >= Widest::kAtOnce) return halve_some<Widest>(upper, lower, row, width);
  if (width >= Fours::kAtOnce) return halve_some<Fours>(upper, lower, row, width);
  for (int x = 0; x < width; x++)
    row[x] = (0.0f + upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]) * 0.25f;
}

void avg_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& in = *pool.in;
  const int width = pool.out->width, stride = pool.stride_w;
  for_rows(pool, begin, end, [&](int plane, int image, int y) {
    float* __restrict row = result_row<float>(pool, size_t(plane), image, y);
    const int start = y * pool.stride_h - pool.pad_h;
    const int first = start > 0 ? start : 0;
    const int last = start + pool.kernel_h < in.height ? start + pool.kernel_h : in.height;
    if (!pool.column_taps && pool.kernel_h == 2 && pool.kernel_w == 2 && stride == 2) {
      const float* upper = source_row<float>(pool, size_t(plane), image, start);
      halve_row(upper, upper + in.row_stride, row, width);
      return;
    }
    for (int x = 0; x < width; x++) row[x] = 0.0f;
    for (int iy = first; iy < last; iy++)
      for (int kx = 0; kx < pool.kernel_w; kx++) {
        const int low = pool.tap_columns[2 * kx], count = pool.tap_columns[2 * kx + 1] - low;
        if (count <= 0) continue;
        const float* from = source_row<float>(pool, size_t(plane), image, iy) + (low * stride + kx - pool.pad_w);
        if (stride == 1)
          add_tap<1>(row + low, from, stride, count);
        else if (stride == 2)
          add_tap<2>(row + low, from, stride, count);
        else
          add_tap<0>(row + low, from, stride, count);
      }
    if (!pool.column_taps) {
      const float scale = 1.0f / float(pool.kernel_h * pool.kernel_w);
      for (int x = 0; x < width; x++) row[x] *= scale;
      return;
    }
    const int padded = start + pool.kernel_h < in.height + pool.pad_h ? pool.kernel_h : in.height + pool.pad_h - start;
    const int taps = pool.include_pad ? padded : last - first;
    for (int x = 0; x < width; x++) row[x] *= 1.0f / float(taps * pool.column_taps[x]);
  });
}

// Whole windows, whose taps are a power of two: sums in 32 bits, and a shift that rounds down.
void avg_pool_i16(const Pool& pool, int64_t begin, int64_t end) {
  constexpr int kSums = 128;  // windows side by side that are summed together
  const int width = pool.out->width, stride = pool.stride_w, shift = pool.shift, row_stride = pool.in->row_stride;
  for_rows(pool, begin, end, [&](int plane, int image, int y) {
    const int16_t* start = source_row<int16_t>(pool, size_t(plane), image, y * pool.stride_h);
    int16_t* __restrict row = result_row<int16_t>(pool, size_t(plane), image, y);
    if (pool.kernel_h == 2 && pool.kernel_w == 2 && stride == 2) {
      const int16_t* __restrict upper = start;
      const int16_t* __restrict lower = start + row_stride;
      for (int x = 0; x < width; x++)
        row[x] = int16_t((upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]) >> 2);
      return;
    }
    for (int done = 0; done < width; done += kSums) {
      const int count = width - done < kSums ? width - done : kSums;
      int32_t sums[kSums];
      for (int x = 0; x < count; x++) sums[x] = 0;
      const int16_t* from = start + done * stride;
      for (int ky = 0; ky < pool.kernel_h; ky++, from += row_stride)
        for (int kx = 0; kx < pool.kernel_w; kx++) {
          const int16_t* tap = from + kx;
          for (int x = 0; x < count; x++, tap += stride) sums[x] += *tap;
        }
      for (int x = 0; x < count; x++) row[done + x] = int16_t(sums[x] >> shift);
    }
  });
}

void global_sum_i16(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry &in = *pool.in, &out = *pool.out;
  for (int64_t c = begin; c < end; c++) {
    const int16_t* src = reinterpret_cast<const int16_t*>(pool.src + size_t(c) * pool.src_plane);
    int32_t* dst = reinterpret_cast<int32_t*>(pool.dst + size_t(c) * pool.dst_plane);
    for (int n = 0; n < in.batch; n++) {
      int32_t sum = 0;
      const int16_t* row = src + row_start(in, n, 0);
      for (int y = 0; y < in.height; y++, row += in.row_stride)
        for (int x = 0; x < in.width; x++) sum += row[x];
      dst[row_start(out, n, 0)] = sum;
    }
  }
}

// Window i of n over `size` rows or columns.
static inline int window_start(int i, int size, int n) { return int(int64_t(i) * size / n); }
static inline int window_end(int i, int size, int n) { return int((int64_t(i + 1) * size + n - 1) / n); }

void adaptive_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry &in = *pool.in, &out = *pool.out;
  // The row made last, and of which rows: towards more rows than there are, many windows repeat.
  int last_plane = -1, last_image = -1, last_top = -1, last_bottom = -1;
  const float* last = nullptr;
  for_rows(pool, begin, end, [&](int plane, int image, int y) {
    float* dst = result_row<float>(pool, size_t(plane), image, y);
    const int top = window_start(y, in.height, out.height), bottom = window_end(y, in.height, out.height);
    const bool repeats = plane == last_plane && image == last_image && top == last_top && bottom == last_bottom;
    if (repeats) memcpy(dst, last, size_t(out.width) * sizeof(float));
    last_plane = plane;
    last_image = image;
    last_top = top;
    last_bottom = bottom;
    last = dst;
    if (repeats) return;
    for (int x = 0; x < out.width; x++) {
      const int left = window_start(x, in.width, out.width), right = window_end(x, in.width, out.width);
      float m = MaxF32::start(), sum = 0.0f;
      for (int iy = top; iy < bottom; iy++) {
        const float* row = source_row<float>(pool, size_t(plane), image, iy);
        if (pool.take_max)
          for (int ix = left; ix < right; ix++) m = MaxF32::join(m, row[ix]);
        else
          for (int ix = left; ix < right; ix++) sum += row[ix];
      }
      dst[x] = pool.take_max ? m : sum * (1.0f / float((bottom - top) * (right - left)));
    }
  });
}

// From element 16 - n on: n times all bits, then none.
alignas(64) static const int32_t kInside[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

void global_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& in = *pool.in;
  const Geometry& out = *pool.out;
  const float count = float(in.height * in.width);
  for (int64_t c = begin; c < end; c++) {
    const float* src = reinterpret_cast<const float*>(pool.src + size_t(c) * pool.src_plane);
    float* dst = reinterpret_cast<float*>(pool.dst + size_t(c) * pool.dst_plane);
    for (int n = 0; n < in.batch; n++) {
      constexpr int kVectors = 16 / kInts;
      Floats sums[kVectors] = {};
      for (int y = 0; y < in.height; y++) {
        const float* row = src + row_start(in, n, y);
        int x = 0;
        for (; x + 16 <= in.width; x += 16)
          for (int i = 0; i < kVectors; i++) sums[i] += floats_at(row + x + i * kInts);
        // What stands behind the row becomes +0, which no sum feels: none is -0.
        for (int i = 0; x + i * kInts < in.width; i++) {
          const int left = in.width - x - i * kInts;
          const Ints inside = ints_at(kInside + 16 - (left < kInts ? left : kInts));
          sums[i] += Floats(Ints(floats_at(row + x + i * kInts)) & inside);
        }
      }
      float s[16];
      memcpy(s, sums, sizeof s);
      for (int half = 8; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) s[j] += s[j + half];
      dst[row_start(out, n, 0)] = s[0] / count;
    }
  }
}

void global_pool_b1(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& in = *pool.in;
  const Geometry& out = *pool.out;
  const int pixels = in.height * in.width;
  for (int64_t c = begin; c < end; c++) {
    const uint8_t* src = pool.src + size_t(c) * pool.src_plane;
    for (int n = 0; n < in.batch; n++) {
      int32_t ones[4] = {0, 0, 0, 0};
      for (int y = 0; y < in.height; y++) {
        const uint8_t* row = src + row_start(in, n, y);
        for (int x = 0; x < in.width; x++)
          for (int k = 0; k < 4; k++) ones[k] += (row[x] >> k) & 1;
      }
      for (int k = 0; k < 4 && int(c) * 4 + k < pool.channels; k++) {
        float* dst = reinterpret_cast<float*>(pool.dst + size_t(c * 4 + k) * pool.dst_plane);
        dst[row_start(out, n, 0)] = float(2 * ones[k] - pixels) / float(pixels);
      }
    }
  }
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
