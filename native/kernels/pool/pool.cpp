// Pooling: rows of a channel (f32) or of a nibble plane (four channels' bits a byte).
//
// Maxima are separable: first down the columns of a window into one row of scratch, which is contiguous,
// then across, with the stride. Both visit the window in the order of docs/numerics.md, column by column.
#include "../../simd/simd.h"
#include "../declare.h"

namespace signbit {
namespace SIGNBIT_NS {

static inline size_t row_start(const Geometry& g, int image, int y) {
  return (size_t(image) * g.image_rows + y) * g.row_stride;
}

struct MaxF32 {
  typedef float T;
  static inline float start() { return -__builtin_inff(); }
  static inline float join(float m, float x) { return x > m ? x : m; }
};
struct OrBits {
  typedef uint8_t T;
  static inline uint8_t start() { return 0; }
  static inline uint8_t join(uint8_t m, uint8_t x) { return m | x; }
};

// One output row: scratch holds the input row's width plus the padding on both sides.
template <typename Op>
static void max_pool_row(const Pool& pool, const typename Op::T* src, int image, int y,
                         typename Op::T* __restrict scratch, typename Op::T* __restrict dst) {
  typedef typename Op::T T;
  const Geometry& in = *pool.in;
  const int padded = in.width + 2 * pool.pad_w;
  for (int x = 0; x < padded; x++) scratch[x] = Op::start();
  T* __restrict columns = scratch + pool.pad_w;
  for (int ky = 0; ky < pool.kernel_h; ky++) {
    const int iy = y * pool.stride_h - pool.pad_h + ky;
    if (iy < 0 || iy >= in.height) continue;
    const T* __restrict row = src + row_start(in, image, iy);
    for (int x = 0; x < in.width; x++) columns[x] = Op::join(columns[x], row[x]);
  }
  for (int x = 0; x < pool.out->width; x++) {
    const T* window = scratch + x * pool.stride_w;
    T m = Op::start();
    for (int kx = 0; kx < pool.kernel_w; kx++) m = Op::join(m, window[kx]);
    dst[x] = m;
  }
}

void max_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& out = *pool.out;
  float* scratch = reinterpret_cast<float*>(pool.scratch);
  for (int64_t c = begin; c < end; c++) {
    const float* src = reinterpret_cast<const float*>(pool.src + size_t(c) * pool.src_plane);
    float* dst = reinterpret_cast<float*>(pool.dst + size_t(c) * pool.dst_plane);
    for (int n = 0; n < out.batch; n++)
      for (int y = 0; y < out.height; y++)
        max_pool_row<MaxF32>(pool, src, n, y, scratch, dst + row_start(out, n, y));
  }
}

void max_pool_b1(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& out = *pool.out;
  const int planes = (pool.channels + 3) / 4;
  for (int64_t c = begin; c < end; c++) {
    const uint8_t* src = pool.src + size_t(c) * pool.src_plane;
    uint8_t* dst = pool.dst + size_t(c) * pool.dst_plane;
    const uint8_t flip = pool.flip ? pool.flip[c] : uint8_t(0);
    const uint8_t halo = c + 1 == planes ? pool.last_halo : pool.halo;
    memset(dst, halo, out.body);
    for (int n = 0; n < out.batch; n++)
      for (int y = 0; y < out.height; y++) {
        uint8_t* row = dst + row_start(out, n, y);
        max_pool_row<OrBits>(pool, src, n, y, pool.scratch, row);
        if (flip)
          for (int x = 0; x < out.width; x++) row[x] ^= flip;
      }
  }
}

void avg_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& in = *pool.in;
  const Geometry& out = *pool.out;
  const float scale = 1.0f / float(pool.kernel_h * pool.kernel_w);
  for (int64_t c = begin; c < end; c++) {
    const float* src = reinterpret_cast<const float*>(pool.src + size_t(c) * pool.src_plane);
    float* dst = reinterpret_cast<float*>(pool.dst + size_t(c) * pool.dst_plane);
    for (int n = 0; n < out.batch; n++)
      for (int y = 0; y < out.height; y++) {
        float* __restrict row = dst + row_start(out, n, y);
        for (int x = 0; x < out.width; x++) row[x] = 0.0f;
        for (int ky = 0; ky < pool.kernel_h; ky++) {
          const float* __restrict from = src + row_start(in, n, y * pool.stride_h + ky);
          for (int kx = 0; kx < pool.kernel_w; kx++)
            for (int x = 0; x < out.width; x++) row[x] += from[x * pool.stride_w + kx];
        }
        for (int x = 0; x < out.width; x++) row[x] *= scale;
      }
  }
}

void global_pool_f32(const Pool& pool, int64_t begin, int64_t end) {
  const Geometry& in = *pool.in;
  const Geometry& out = *pool.out;
  const float count = float(in.height * in.width);
  for (int64_t c = begin; c < end; c++) {
    const float* src = reinterpret_cast<const float*>(pool.src + size_t(c) * pool.src_plane);
    float* dst = reinterpret_cast<float*>(pool.dst + size_t(c) * pool.dst_plane);
    for (int n = 0; n < in.batch; n++) {
      float s[16];
      for (int j = 0; j < 16; j++) s[j] = 0.0f;
      for (int y = 0; y < in.height; y++) {
        const float* row = src + row_start(in, n, y);
        int x = 0;
        for (; x + 16 <= in.width; x += 16)
          for (int j = 0; j < 16; j++) s[j] += row[x + j];
        for (int j = 0; x + j < in.width; j++) s[j] += row[x + j];
      }
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
