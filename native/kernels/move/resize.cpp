// Resizing: nearest for real values and for bits, four channels at once; bilinear for real values.
#include "../../simd/simd.h"
#include "../declare.h"
#include "../rows.h"

namespace signbit {
namespace SIGNBIT_NS {

// The row that was made last: where the next one repeats it, it is copied.
template <typename T>
struct LastRow {
  int plane = -1, image = -1, source = -1;
  const T* pixels = nullptr;
};

template <typename T>
static inline void nearest_row(const Resize& r, int plane, int image, int y, LastRow<T>* last) {
  const int source = r.rows.from[y], width = r.out->width;
  T* __restrict dst = result_row<T>(r, size_t(plane), image, y);
  if (last->plane == plane && last->image == image && last->source == source) {
    memcpy(dst, last->pixels, size_t(width) * sizeof(T));
  } else {
    const T* __restrict src = source_row<T>(r, size_t(plane), image, source);
    const int32_t* __restrict column = r.columns.from;
    for (int x = 0; x < width; x++) dst[x] = src[column[x]];
  }
  last->plane = plane;
  last->image = image;
  last->source = source;
  last->pixels = dst;
}

void nearest_f32(const Resize& r, int64_t begin, int64_t end) {
  LastRow<float> last;
  for_rows(r, begin, end, [&](int plane, int image, int y) { nearest_row(r, plane, image, y, &last); });
}

void nearest_b1(const Resize& r, int64_t begin, int64_t end) {
  LastRow<uint8_t> last;
  for_rows(r, begin, end, [&](int plane, int image, int y) {
    nearest_row(r, plane, image, y, &last);
    close_row(r, plane, image, y);
  });
}

void bilinear_f32(const Resize& r, int64_t begin, int64_t end) {
  const Axis columns = r.columns;
  for_rows(r, begin, end, [&](int plane, int image, int y) {
    const float* __restrict upper = source_row<float>(r, size_t(plane), image, r.rows.from[y]);
    const float* __restrict lower = source_row<float>(r, size_t(plane), image, r.rows.next[y]);
    float* __restrict dst = result_row<float>(r, size_t(plane), image, y);
    const float gy = r.rows.from_weight[y], fy = r.rows.next_weight[y];
    for (int x = 0; x < r.out->width; x++) {
      const int32_t left = columns.from[x], right = columns.next[x];
      const float gx = columns.from_weight[x], fx = columns.next_weight[x];
      const float top = upper[left] * gx + upper[right] * fx;
      const float bottom = lower[left] * gx + lower[right] * fx;
      dst[x] = top * gy + bottom * fy;
    }
  });
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
