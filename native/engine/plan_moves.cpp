// Steps that move pixels: channels in another order, resizing, pixel shuffle.
#include <algorithm>
#include <cmath>

#include "planner.h"

namespace signbit {

namespace {

// A channel of one of the maps that an index counts through, one map behind the other.
struct Source {
  const Map* map;
  int channel;
};

}  // namespace

void Planner::add_channels(int index) {
  const NodeInfo& n = node(index);
  const Map& out = map(n.outputs[0]);
  const int channels = info(n.outputs[0]).channels;
  const Type type = info(n.outputs[0]).type;
  const bool bits = type == Type::kB1, integer = type == Type::kI16;
  const int32_t* order = program_.tensors[size_t(n.params[0])].i32();
  std::vector<int> first = {0};  // channel of each input
  for (int v : n.inputs) first.push_back(first.back() + info(v).channels);
  auto find = [&](int channel) -> Source {
    const size_t i = size_t(std::upper_bound(first.begin(), first.end(), channel) - first.begin()) - 1;
    return {&map(n.inputs[i]), channel - first[i]};
  };
  ChannelMove move = {};
  move.geometry = out.geometry;
  move.dst = out.body;
  move.dst_plane = out.plane_bytes;
  move.planes = out.planes;
  move.halo = out.halo;
  move.last_halo = out.last_halo;
  if (bits) {
    BitSources* sources = keep<BitSources>(size_t(out.planes));
    for (int plane = 0; plane < out.planes; plane++) {
      BitSources& b = sources[plane] = {};
      bool in_place = true;
      for (int k = 0; k < 4 && 4 * plane + k < channels; k++) {
        const Source s = find(order[4 * plane + k]);
        b.source[k] = s.map->body + size_t(s.channel / 4) * s.map->plane_bytes;
        b.shift[k] = uint8_t(s.channel % 4);
        b.mask |= uint8_t(1 << k);
        in_place = in_place && b.source[k] == b.source[0] && b.shift[k] == k;
      }
      if (!in_place) b.mask = 0;
    }
    move.bit_sources = sources;
  } else {
    const uint8_t** sources = keep<const uint8_t*>(size_t(channels));
    for (int c = 0; c < channels; c++) {
      const Source s = find(order[c]);
      sources[c] = s.map->body + size_t(s.channel) * s.map->plane_bytes;
    }
    move.sources = sources;
  }
  const auto kernel = bits ? s_.kernels_->channels_b1 : integer ? s_.kernels_->channels_i16 : s_.kernels_->channels_f32;
  const int64_t tiles = int64_t((move.geometry->body + kMoveTile - 1) / kMoveTile);
  new_step(n, "channels", bits ? "channels_b1" : integer ? "channels_i16" : "channels_f32").run =
      parallel(n, out.planes * tiles, [=](int64_t begin, int64_t end, int) { kernel(move, begin, end); });
}

// What each of `to` rows or columns reads of `from`: docs/numerics.md.
Axis Planner::resize_axis(const ResizeInfo& r, int from, int to) {
  int32_t* first = keep<int32_t>(size_t(to));
  if (!r.bilinear) {
    const float step = float(from) / float(to);
    for (int i = 0; i < to; i++) first[i] = std::min(int32_t(float(i) * step), from - 1);
    return {first, nullptr, nullptr, nullptr};
  }
  int32_t* next = keep<int32_t>(size_t(to));
  float *first_weight = keep<float>(size_t(to)), *next_weight = keep<float>(size_t(to));
  const double step = !r.align_corners ? double(from) / to : to > 1 ? double(from - 1) / (to - 1) : 0.0;
  for (int i = 0; i < to; i++) {
    const double at = r.align_corners ? i * step : std::max(0.0, (i + 0.5) * step - 0.5);
    first[i] = int32_t(std::min<double>(std::floor(at), from - 1));
    next[i] = std::min(first[i] + 1, from - 1);
    next_weight[i] = float(at - first[i]);
    first_weight[i] = float(1.0 - (at - first[i]));
  }
  return {first, next, first_weight, next_weight};
}

void Planner::add_resize(int index) {
  const NodeInfo& n = node(index);
  const bool bits = info(n.inputs[0]).type == Type::kB1;
  Resize resize = {};
  set_rows(n, &resize);
  resize.rows = resize_axis(n.resize, resize.in->height, resize.out->height);
  resize.columns = resize_axis(n.resize, resize.in->width, resize.out->width);
  const auto kernel = bits ? s_.kernels_->nearest_b1 : n.resize.bilinear ? s_.kernels_->bilinear_f32 : s_.kernels_->nearest_f32;
  new_step(n, "resize", bits ? "nearest_b1" : n.resize.bilinear ? "bilinear_f32" : "nearest_f32").run =
      parallel(n, row_items(resize), [=](int64_t begin, int64_t end, int) { kernel(resize, begin, end); });
}

void Planner::add_pixel_shuffle(int index) {
  const NodeInfo& n = node(index);
  const bool bits = info(n.inputs[0]).type == Type::kB1;
  Shuffle shuffle = {};
  set_rows(n, &shuffle);
  shuffle.factor = n.factor;
  shuffle.channels = info(n.outputs[0]).channels;
  const auto kernel = bits ? s_.kernels_->pixel_shuffle_b1 : s_.kernels_->pixel_shuffle_f32;
  new_step(n, "pixel_shuffle", bits ? "pixel_shuffle_b1" : "pixel_shuffle_f32").run =
      parallel(n, row_items(shuffle), [=](int64_t begin, int64_t end, int) { kernel(shuffle, begin, end); });
}

}  // namespace signbit
