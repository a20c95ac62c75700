// Rows of images in a plane, and what stands behind them.
#pragma once

#include <string.h>

#include "kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

static inline size_t row_start(const Geometry& g, int image, int y) {
  return (size_t(image) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride);
}

// Call `work(plane, image, y)` for every row of the items [begin, end).
template <typename Work>
static inline void for_rows(const RowWork& w, int64_t begin, int64_t end, Work work) {
  const int height = w.out->height, rows = w.out->batch * height;
  const int bands = (rows + w.band_rows - 1) / w.band_rows;
  for (int64_t item = begin; item < end; item++) {
    const int plane = int(item / bands), first = int(item % bands) * w.band_rows;
    const int last = rows - first < w.band_rows ? rows : first + w.band_rows;
    for (int row = first; row < last; row++) work(plane, row / height, row % height);
  }
}

// Fill what lies between a row of bits and the next one: halo columns, behind an image halo rows too, and behind the last
// image the plane's rounding.
static inline void close_row(const RowWork& w, int plane, int image, int y) {
  const Geometry& g = *w.out;
  const size_t end = row_start(g, image, y) + size_t(g.width);
  size_t next = g.body;
  if (y + 1 < g.height)
    next = row_start(g, image, y + 1);
  else if (image + 1 < g.batch)
    next = row_start(g, image + 1, 0);
  memset(w.dst + size_t(plane) * w.dst_plane + end, plane + 1 == w.planes ? w.last_halo : w.halo, next - end);
}

template <typename T>
static inline const T* source_row(const RowWork& w, size_t plane, int image, int y) {
  return reinterpret_cast<const T*>(w.src + plane * w.src_plane) + row_start(*w.in, image, y);
}

template <typename T>
static inline T* result_row(const RowWork& w, size_t plane, int image, int y) {
  return reinterpret_cast<T*>(w.dst + plane * w.dst_plane) + row_start(*w.out, image, y);
}

}  // namespace SIGNBIT_NS
}  // namespace signbit
