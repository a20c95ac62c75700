// Convolutions: repacked inputs, valid taps, weights in the order of the kernels.
#include <algorithm>
#include <cstring>

#include "cache.h"
#include "planner.h"
#include "select.h"

namespace signbit {

namespace {

// Pixels of a phase of a stride, in rows of a copy: from row `first` to row `last` of all images, those between images with them.
struct Phase {
  const Geometry &in, &out;
  int y, x, stride_h, stride_w;
  int rows, columns;  // that taps reach
  int first, last;

  int rows_inside() const { return std::min(rows, (in.height - y + stride_h - 1) / stride_h); }
  int columns_inside() const { return std::max(0, std::min(columns, (in.width - x + stride_w - 1) / stride_w)); }
  // `work(position in the copy, position of its first pixel, row of the image)` for each row up to `end` of an image.
  template <typename Work>
  void for_rows(int end, Work work) const {
    for (int r = first; r < last; r++) {
      const int n = r / out.image_rows, row = r % out.image_rows;
      if (row >= end) continue;
      work(size_t(r) * size_t(out.row_stride),
           (size_t(n) * size_t(in.image_rows) + size_t(row * stride_h + y)) * size_t(in.row_stride) + size_t(x), row);
    }
  }
};

// Of one of a plane's four 8-bit channels.
void copy_bytes(const Map& from, const Map& to, size_t plane, int byte, size_t to_plane, const Phase& p) {
  const uint8_t* src = from.body + plane * from.plane_bytes + byte;
  uint8_t* dst = to.body + to_plane * to.plane_bytes;
  const int columns = p.columns_inside();
  p.for_rows(p.rows_inside(), [&](size_t at, size_t pixel, int) {
    const uint8_t* s = src + 4 * pixel;
    for (int x = 0; x < columns; x++, s += 4 * p.stride_w) dst[at + size_t(x)] = *s;
  });
}

// Every second element, by vectors of 16 bytes: compilers do not make them of the last loop.
typedef uint8_t Bytes16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t Words8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint32_t Quads4 __attribute__((vector_size(16), aligned(4), may_alias));
Bytes16 vector_at(const uint8_t* p) { return *reinterpret_cast<const Bytes16*>(p); }
Words8 vector_at(const uint16_t* p) { return *reinterpret_cast<const Words8*>(p); }
Quads4 vector_at(const uint32_t* p) { return *reinterpret_cast<const Quads4*>(p); }
Bytes16 evens(Bytes16 x, Bytes16 y) {
  return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
Words8 evens(Words8 x, Words8 y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14); }
Quads4 evens(Quads4 x, Quads4 y) { return __builtin_shufflevector(x, y, 0, 2, 4, 6); }

template <typename T>
void copy_evens(const T* from, T* to, int count) {
  constexpr int kAtOnce = 16 / sizeof(T);
  const auto copy = [&](int x) {
    const auto even = evens(vector_at(from + 2 * x), vector_at(from + 2 * x + kAtOnce));
    std::memcpy(to + x, &even, sizeof even);
  };
  if (count <= kAtOnce) {
    for (int x = 0; x < count; x++) to[x] = from[2 * x];
    return;
  }
  // A vector reads one element more than it needs, which the last one of the row may be beyond.
  for (int x = 0; x < count - 1 - kAtOnce; x += kAtOnce) copy(x);
  copy(count - 1 - kAtOnce);
  to[count - 1] = from[2 * (count - 1)];
}

template <typename T>
void copy_phase(const Map& from, const Map& to, size_t plane, size_t to_plane, const Phase& p) {
  const T* src = reinterpret_cast<const T*>(from.body + plane * from.plane_bytes);
  T* dst = reinterpret_cast<T*>(to.body + to_plane * to.plane_bytes);
  const int columns = p.columns_inside();
  p.for_rows(p.rows_inside(), [&](size_t at, size_t pixel, int) {
    const T* s = src + pixel;
    T* d = dst + at;
    if (p.stride_w == 1) {
      std::memcpy(d, s, size_t(columns) * sizeof(T));
    } else if (p.stride_w == 2) {
      copy_evens(s, d, columns);
    } else {
      for (int x = 0; x < columns; x++) d[x] = s[size_t(x) * size_t(p.stride_w)];
    }
  });
}

// Puts a channel of a phase's pixels into a byte of the dwords that stand where that phase's own would. Dwords with no such pixel
// beside them have there what is outside the image.
void seat_channel(const Map& from, const Map& to, size_t to_plane, int byte, int channel, const Phase& p) {
  const uint32_t* src = reinterpret_cast<const uint32_t*>(from.body);
  uint32_t* dst = reinterpret_cast<uint32_t*>(to.body + to_plane * to.plane_bytes);
  const uint32_t others = ~(uint32_t(255) << 8 * byte), outside = uint32_t(to.halo) << 8 * byte;
  const int inside_rows = p.rows_inside(), inside = p.columns_inside();
  p.for_rows(p.rows, [&](size_t at, size_t pixel, int row) {
    uint32_t* d = dst + at;
    int x = 0;
    if (row < inside_rows) {
      const uint32_t* s = src + pixel;
      if (p.stride_w == 2)
        for (; x < inside - 4; x += 4) {
          const Quads4 seen = evens(vector_at(s + 2 * x), vector_at(s + 2 * x + 4)), kept = vector_at(d + x) & others;
          const Quads4 made = kept | (seen >> 8 * channel & 255) << 8 * byte;
          std::memcpy(d + x, &made, sizeof made);
        }
      for (; x < inside; x++) d[x] = (d[x] & others) | (s[size_t(x) * size_t(p.stride_w)] >> 8 * channel & 255) << 8 * byte;
    }
    for (; x < p.columns; x++) d[x] = (d[x] & others) | outside;
  });
}

}  // namespace

void Planner::add_repack_step(const Repack& r) {
  const Map from = map(r.value), to = r.map;
  charge(kStepBytes + node(r.first - 1).path.size());
  s_.steps_.emplace_back();
  PlanStep& step = s_.steps_.back();
  step.name = node(r.first - 1).path;
  step.op = "repack";
  const bool unpacks = r.type != info(r.value).type;
  step.kernel = std::string(unpacks ? "repack_bytes_s" : r.guests.empty() ? "repack_s" : "repack_guests_s") +
                std::to_string(r.stride_h) + "x" + std::to_string(r.stride_w);
  step.shape = dimensions(info(r.value).channels, r.geometry->height, r.geometry->width);
  step.layout = layout(to, r.type);
  const int planes = to.planes, kept = r.kept.empty() ? r.slots() : int(r.kept.size());
  step.bytes = from.geometry->body * from.element * size_t(from.planes) + to.plane_bytes * size_t(planes * kept);
  const int32_t *phase_rows = keep_copy(r.rows), *phase_columns = keep_copy(r.columns);
  const int phases_a_row = int(r.columns.size());
  const int stride_h = r.stride_h, stride_w = r.stride_w;
  // Rows and columns behind the output's last that taps still reach.
  const int rows = r.geometry->height + std::max(0, r.reach.high_y);
  const int columns = r.geometry->width + std::max(0, r.reach.high_x);
  const size_t guest_count = r.guests.size();
  const Repack::Guest* guests = guest_count ? keep_copy(r.guests) : nullptr;
  const int32_t* kept_slots = guest_count ? keep_copy(r.kept) : nullptr;
  // A copy of few planes is shared out by rows, too.
  const int all_rows = r.geometry->batch * r.geometry->image_rows, threads = s_.options_.threads;
  const int bands = std::min(threads == 1 ? 1 : ceil_div(4 * threads, kept * planes), all_rows);
  step.run = share_out({}, int64_t(kept) * planes * bands, [=](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; item++) {
      const int band = int(item / (int64_t(kept) * planes)), of = int(item % (int64_t(kept) * planes));
      const int slot = kept_slots ? kept_slots[of / planes] : of / planes;
      const size_t plane = size_t(of % planes), to_plane = size_t(slot) * size_t(planes) + plane;
      const Geometry &in = *from.geometry, &out = *to.geometry;
      const int first = int(int64_t(all_rows) * band / bands), last = int(int64_t(all_rows) * (band + 1) / bands);
      const auto phase = [&](int of_slot) {
        return Phase{in, out, phase_rows[of_slot / phases_a_row], phase_columns[of_slot % phases_a_row], stride_h, stride_w,
                     rows, columns, first, last};
      };
      const uint8_t halo = int(plane) + 1 == planes ? to.last_halo : to.halo;
      const size_t start = band ? size_t(first) * size_t(out.row_stride) + out.margin : 0;  // from the margin's beginning
      const size_t stop = band + 1 < bands ? size_t(last) * size_t(out.row_stride) + out.margin : out.plane;
      std::memset(to.body + to_plane * to.plane_bytes - out.margin * to.element + start * to.element, halo, (stop - start) * to.element);
      const Phase own = phase(slot);
      if (unpacks)
        copy_bytes(from, to, plane / 4, int(plane % 4), to_plane, own);
      else if (to.element == 1)
        copy_phase<uint8_t>(from, to, plane, to_plane, own);
      else if (to.element == 2)
        copy_phase<uint16_t>(from, to, plane, to_plane, own);
      else
        copy_phase<uint32_t>(from, to, plane, to_plane, own);
      for (size_t i = 0; i < guest_count; i++)
        if (const Repack::Guest& g = guests[i]; g.slot == slot) seat_channel(from, to, to_plane, g.byte, g.channel, phase(g.from));
    }
  });
}

// Sums of these taps fit int16.
bool Planner::is_narrow(const NodeInfo& n) const {
  return n.window.kernel_h * n.window.kernel_w * (n.window.in_channels / n.window.groups) <= 32766;
}

// Halves of the sums are integers of 16 bits.
bool Planner::has_half_sums(const NodeInfo& n) const {
  return is_narrow(n) && n.window.in_channels / n.window.groups % 2 == 0;
}

// Convolutions with equal keys share a table of valid taps.
std::vector<int64_t> Planner::valid_key(const NodeInfo& n) const {
  const Window& w = n.window;
  const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
  return {in.height, in.width, out.height, out.width, w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.pad_h, w.pad_w,
          w.dilation_h, w.dilation_w, w.in_channels / w.groups, w.pad_value != 0};
}

size_t Planner::valid_bytes(const NodeInfo& n) const {
  const size_t body = geometry(size(n.outputs[0]))->body;
  const size_t base = round_up(body, size_t(s_.kernels_->binary_vector)) * sizeof(int16_t);
  if (!is_narrow(n)) return base + body * sizeof(int32_t);
  return base + (n.window.in_channels / n.window.groups % 2 ? body : 0);
}

namespace {

// Taps along one axis that lie inside the image.
int inside(int at, int kernel, int stride, int pad, int dilation, int limit) {
  const int64_t start = int64_t(at) * stride - pad;  // of the first tap; counted below: taps before the image and before its end
  const int64_t outside = std::min<int64_t>(kernel, start < 0 ? (-start + dilation - 1) / dilation : 0);
  const int64_t before_end = std::min<int64_t>(kernel, start < limit ? (limit - start + dilation - 1) / dilation : 0);
  return int(std::max<int64_t>(0, before_end - outside));
}

}  // namespace

// How many taps are inside the image at a pixel, those of its row times those of its column: times the channels, what
// `2 * matches` loses to become a dot product.
int Planner::valid_rows(const NodeInfo& n, int y) const {
  const Window& w = n.window;
  return w.pad_value ? w.kernel_h : inside(y, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h, size(n.inputs[0]).height);
}

int Planner::valid_columns(const NodeInfo& n, int x) const {
  const Window& w = n.window;
  return w.pad_value ? w.kernel_w : inside(x, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w, size(n.inputs[0]).width);
}

void Planner::make_valid(const NodeInfo& n, BinaryConv* conv) {
  const Window& w = n.window;
  const Geometry& g = *geometry(size(n.outputs[0]));
  Valid& made = valid_[valid_key(n)];
  if (!made.base) {
    const size_t vector = size_t(s_.kernels_->binary_vector);
    const bool narrow = is_narrow(n);
    const int channels = w.in_channels / w.groups;
    int16_t* base = keep<int16_t>(round_up(g.body, vector));
    int8_t* odd = narrow && channels % 2 ? keep<int8_t>(g.body) : nullptr;
    int32_t* valid32 = narrow ? nullptr : keep<int32_t>(g.body);
    std::vector<int> columns;
    for (int x = 0; x < g.width; x++) columns.push_back(valid_columns(n, x) * channels);
    for (int y = 0; y < g.height; y++) {
      const int rows = valid_rows(n, y);
      for (int x = 0; x < g.width; x++) {
        const int valid = rows * columns[size_t(x)];
        for (int image = 0; image < g.batch; image++) {
          const size_t p = (size_t(image) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride) + size_t(x);
          const size_t lane = p % vector;
          if (narrow)
            base[p - lane + lane % 2 * (vector / 2) + lane / 2] = int16_t(-(valid / 2));
          else
            valid32[p] = valid;
          if (odd) odd[p] = int8_t(valid % 2);
        }
      }
    }
    made = {base, odd, valid32};
  }
  conv->base = made.base;
  conv->odd = made.odd;
  conv->valid32 = made.valid32;
}

namespace {

// Whether no two groups' results share a nibble plane.
bool fills_planes(const Window& w) { return w.groups == 1 || w.out_channels / w.groups % 4 == 0; }

// Sums that fit 16 bits are beyond these limits nowhere.
constexpr int32_t kLeast = -32767, kMost = 32767;

}  // namespace

// Whether the epilogue is a threshold of one cut a channel, and nibble planes are written whole.
bool Planner::has_cuts(const NodeInfo& n) const {
  if (!has_half_sums(n) || !fills_planes(n.window)) return false;
  if (n.steps.size() != 1 || StepKind(n.steps[0].code) != StepKind::kThreshold) return false;
  const int32_t* low = program_.tensors[size_t(n.steps[0].params[0])].i32();
  const int32_t* high = program_.tensors[size_t(n.steps[0].params[1])].i32();
  for (int c = 0; c < n.window.out_channels; c++)
    if (low[c] > kLeast && high[c] < kMost) return false;
  return true;
}

// `above` and `flip`, where there are cuts.
void Planner::make_cuts(const NodeInfo& n, BinaryCuts* cuts) {
  const Window& w = n.window;
  if (!has_cuts(n)) return;
  const std::vector<int32_t>& params = n.steps[0].params;
  auto tensor = [&](size_t k) -> const Tensor& { return program_.tensors[size_t(params[k])]; };
  const int32_t *low = tensor(0).i32(), *high = tensor(1).i32();
  int16_t* above = keep<int16_t>(size_t(w.out_channels));
  uint8_t* flip = keep<uint8_t>(size_t(ceil_div(w.out_channels, 4)));
  for (int c = 0; c < w.out_channels; c++) {
    const bool is_low = high[c] >= kMost;  // dot >= low; else dot <= high, that is not dot > high
    // dot / 2 is an integer: dot >= low where dot / 2 > ceil(low / 2) - 1, dot > high where dot / 2 > floor(high / 2).
    const int32_t cut = is_low ? std::clamp(low[c], kLeast, kMost) - 1 : std::clamp(high[c], kLeast, kMost);
    above[c] = int16_t(floor_div(cut, 2));
    flip[c / 4] = uint8_t(flip[c / 4] | (int(!is_low) ^ int(tensor(2).data[c])) << c % 4);
  }
  cuts->above = above;
  cuts->flip = flip;
}

namespace {

// quant4_shift of the dot products 2 * -most .. 2 * most, on their halves and in 16-bit numbers; false where there are no
// such numbers. Either is a ladder of 15 cuts, and two ladders are equal where their cuts are.
bool find_quant4(int64_t multiplier, int64_t offset, int shift, int64_t most, Quant4* found) {
  const int64_t sign = multiplier < 0 ? -1 : 1, slope = 2 * multiplier * sign;  // of u = sign * half
  int64_t reached[15], missed[15];  // the least u at which a level is held, the greatest at which it is not
  bool always[15], never[15];
  for (int k = 0; k < 15; k++) {
    const int64_t need = (k - 7) * (int64_t(1) << shift) - offset;
    int64_t cut = need <= 0 ? -most : most + 1;
    if (slope) cut = std::clamp<int64_t>(need > 0 ? (need + slope - 1) / slope : -(-need / slope), -most, most + 1);
    always[k] = cut == -most;
    never[k] = cut == most + 1;
    reached[k] = cut;
    missed[k] = cut - 1;
  }
  for (int to = 24; to >= 0; to--) {
    const int64_t m = shift >= to ? slope >> (shift - to) : slope << (to - shift);
    if (m > 32767) continue;
    int64_t least = -(int64_t(1) << 40), greatest = int64_t(1) << 40;
    for (int k = 0; k < 15; k++) {
      const int64_t level = (k - 7) * (int64_t(1) << to);
      if (!never[k]) least = std::max(least, level - reached[k] * m);
      if (!always[k]) greatest = std::min(greatest, level - 1 - missed[k] * m);
    }
    for (int unit = 0; unit <= 14; unit++) {
      const int64_t o = std::clamp<int64_t>(0, -(-least >> unit), std::max(-(-least >> unit), greatest >> unit));
      if (o * (int64_t(1) << unit) > greatest || o < -32767 || o > 32767) continue;
      *found = {int16_t(m * sign), int16_t(o), int16_t(1 << unit), int16_t(to)};
      return true;
    }
  }
  return false;
}

}  // namespace

void Planner::make_quant4(const NodeInfo& n, const Epilogue& e, BinaryCuts* cuts) {
  const Window& w = n.window;
  if (!has_half_sums(n) || !fills_planes(w)) return;
  using C = StepCode;
  if (e.chain != chain_of<C::kQuant4Shift, C::kStoreI4>() && e.chain != chain_of<C::kQuant4Shift, C::kAddI4, C::kThreshold>())
    return;
  Quant4* quant4 = keep<Quant4>(size_t(w.out_channels));
  const EpilogueStep& step = e.steps[0];
  const int64_t most = (int64_t(w.kernel_h) * w.kernel_w * (w.in_channels / w.groups) + 1) / 2;
  // The step itself is in 32 bits, which must not overflow on the way.
  for (int c = 0; c < w.out_channels; c++) {
    if (2 * most * std::abs(int64_t(step.i0[c])) + std::abs(int64_t(step.i1[c])) > INT32_MAX) return;
    if (!find_quant4(step.i0[c], step.i1[c], step.shift, most, &quant4[c])) return;
  }
  cuts->quant4 = quant4;
}

namespace {

// The input channels that some output channels read: those of their groups.
struct Reads {
  int first, end;
  int plane() const { return first / 4; }
  int planes() const { return (end + 3) / 4 - first / 4; }
};

Reads reads_of(const Window& w, int channel, int channels) {
  const int in_group = w.in_channels / w.groups, out_group = w.out_channels / w.groups;
  return {channel / out_group * in_group, ((channel + channels - 1) / out_group + 1) * in_group};
}

// Of each plane that `r` reaches, the channels that it holds.
std::vector<uint8_t> plane_masks(const Reads& r) {
  std::vector<uint8_t> masks(size_t(r.planes()), 0);
  for (int channel = r.first; channel < r.end; channel++)
    masks[size_t(channel / 4 - r.plane())] |= uint8_t(1 << channel % 4);
  return masks;
}

// Whether an epilogue is of integer steps without a multiplication.
bool all_shifting(const Epilogue& e) {
  return std::all_of(e.steps, e.steps + e.count, [](const EpilogueStep& s) { return is_shifting(s.code); });
}

// What a band of positions may take of the second-level cache, which weights and outputs pass through too.
size_t band_bytes() {
  static const size_t bytes = cache_bytes(2) / 4;
  return bytes;
}

}  // namespace

const Planner::Repack* Planner::with_guests(int index) const {
  const Repack* repack = repack_of_[size_t(index)];
  return repack && !repack->guests.empty() ? repack : nullptr;
}

// Of an input with guests fewer than there are.
int Planner::taps_read(int index) const {
  const Window& w = node(index).window;
  const Repack* hosts = with_guests(index);
  return hosts ? int(hosts->taps.size()) : w.kernel_h * w.kernel_w;
}

// Where a tap lies in its slot, in positions from a pixel.
int64_t Planner::tap_position(int index, const Geometry& in, int tap, int* slot) const {
  const Window& w = node(index).window;
  const Repack* repack = repack_of_[size_t(index)];
  const int y = tap / w.kernel_w * w.dilation_h - w.pad_h, x = tap % w.kernel_w * w.dilation_w - w.pad_w;
  *slot = repack ? repack->slot_of(y, x) : 0;
  return floor_div(y, repack ? w.stride_h : 1) * int64_t(in.row_stride) + floor_div(x, repack ? w.stride_w : 1);
}

// Where the taps that are read lie, over a number of neighbouring planes of a node's input, in bytes from the first plane:
// [tap][plane].
const int32_t* Planner::tap_offsets(int index, const Map& in, int planes) {
  const Repack* hosts = with_guests(index);
  const int taps = taps_read(index);
  int32_t* offset = keep<int32_t>(size_t(taps) * size_t(planes));
  int32_t* next = offset;
  const int64_t slot_bytes = in.planes * int64_t(in.plane_bytes);
  for (int k = 0; k < taps; k++) {
    int slot = 0;
    const int64_t position = tap_position(index, *in.geometry, hosts ? hosts->taps[size_t(k)] : k, &slot);
    const int64_t at = position * int64_t(in.element) + slot * slot_bytes;
    for (int q = 0; q < planes; q++) *next++ = int32_t(at + q * int64_t(in.plane_bytes));
  }
  return offset;
}

// The work of a convolution but for its weights: blocks of output channels, cut into segments where `one_group` asks
// that none reaches over several groups.
std::vector<ConvSegment> Planner::make_segments(int index, int block_channels, bool one_group,
                                                std::vector<int32_t>* first) {
  const Window& w = node(index).window;
  const Map& in = input_of(index);
  const int taps = taps_read(index), out_group = w.out_channels / w.groups;
  const bool masked = one_group && w.groups > 1 && w.in_channels / w.groups % 4;
  std::map<int, const int32_t*> offsets;  // by planes
  std::map<int, const uint8_t*> masks;    // by where in a nibble the group starts
  // Counted before they are made: a few bytes of weights may be many segments.
  require_memory(charged_ + (size_t(w.out_channels / block_channels) + size_t(w.groups) + 1) * sizeof(ConvSegment));
  std::vector<ConvSegment> segments;
  for (int block = 0; block < w.out_channels; block += block_channels) {
    first->push_back(int32_t(segments.size()));
    const int block_end = std::min(block + block_channels, w.out_channels);
    for (int channel = block, end; channel < block_end; channel = end) {
      end = one_group ? std::min(block_end, (channel / out_group + 1) * out_group) : block_end;
      const Reads reads = reads_of(w, channel, end - channel);
      const int32_t*& offset = offsets[reads.planes()];
      if (!offset) offset = tap_offsets(index, in, reads.planes());
      ConvSegment s = {};
      s.input = in.body + size_t(reads.plane()) * in.plane_bytes;
      s.offset = offset;
      s.steps = taps * reads.planes();
      s.channel = channel;
      s.channels = end - channel;
      if (masked) {
        const uint8_t*& mask = masks[reads.first % 4];
        if (!mask) {
          std::vector<uint8_t> of_taps, of_planes = plane_masks(reads);
          for (int t = 0; t < taps; t++) of_taps.insert(of_taps.end(), of_planes.begin(), of_planes.end());
          mask = keep_copy(of_taps);
        }
        s.mask = mask;
      }
      segments.push_back(s);
    }
  }
  first->push_back(int32_t(segments.size()));
  return segments;
}

namespace {

// Adds the ends of pieces from the last one's end to `end`, as even as can be and none of more than `widest`; nothing where that end is beyond.
void cut_evenly(int64_t end, int64_t widest, std::vector<int32_t>* ends) {
  const int64_t from = ends->back(), count = (end - from + widest - 1) / widest;
  for (int64_t i = 1; i <= count; i++) ends->push_back(int32_t(from + (end - from) * i / count));
}

}  // namespace

// Tiles of positions that a band has at most: as many as keep what a block of channels reads of them, and of the rows around them, in
// cache until the last block has read it.
int64_t Planner::band_tiles(int index, int planes, int64_t tile) const {
  const Repack* repack = repack_of_[size_t(index)];
  const Map& in = input_of(index);
  const int64_t slots = repack ? repack->slots() : 1;
  const Reach r = reach_of(node(index));
  const int64_t around = int64_t(r.high_y - r.low_y) * in.geometry->row_stride;
  const int64_t held = int64_t(band_bytes()) / (slots * planes * int64_t(in.element));
  return std::max<int64_t>(1, std::max(held - around, around) / tile);
}

// Bands, and where each thread's share of the items ends, null where they are as many each. A share has as many `vector`s of positions as the
// others: the last tile may have few. No band reaches over where a share ends but that of the tile which two shares divide: what a thread reads
// and writes is another one's nowhere else. One band where no two blocks read the same planes.
const int64_t* Planner::lay_out_items(int index, int planes, int block_channels, int64_t tile, int64_t vector, ConvItems* items) {
  const Window& w = node(index).window;
  items->end = input_of(index).geometry->end;
  const int64_t vectors = (int64_t(items->end) + vector - 1) / vector, in_tile = tile / vector, tiles = (vectors + in_tile - 1) / in_tile;
  const bool one_band = w.out_channels / w.groups <= block_channels;
  const int64_t widest = one_band ? tiles : band_tiles(index, planes, tile), threads = s_.options_.threads;
  std::vector<int32_t> band = {0};
  std::vector<int64_t> ends;
  for (int64_t share = 1; share < threads && (!one_band || items->blocks == 1); share++) {
    const int64_t at = vectors * share / (threads * in_tile), within = vectors * share - at * threads * in_tile;
    const int64_t of = std::min(in_tile, vectors - at * in_tile) * threads;
    ends.push_back(at * items->blocks + within * items->blocks / of);
    if (one_band) continue;
    cut_evenly(at, widest, &band);
    if (within) cut_evenly(at + 1, widest, &band);
  }
  cut_evenly(tiles, widest, &band);
  band.push_back(band.back());  // a walk goes one item further
  items->band = keep_copy(band);
  return ends.empty() ? nullptr : keep_copy(ends);
}

// What an epilogue begins with is at most, on either side of 0: a sum, or a map's integer.
int64_t Planner::greatest_sum(const NodeInfo& n) const {
  const Window& w = n.window;
  const int64_t taps = int64_t(w.kernel_h) * w.kernel_w * (w.in_channels / w.groups);
  if (n.op == Op::kConvB1) return taps;
  if (n.op == Op::kPointwise) return 32768;
  if (info(n.inputs[0]).type == Type::kI32) return kWrapped;
  const int64_t greatest = info(n.inputs[0]).type == Type::kI16 ? 32768 : std::max(w.zero_point, 255 - w.zero_point);
  return std::min(kWrapped, taps * 128 * greatest);
}

int64_t Planner::macs(const NodeInfo& n) const {
  const Window& w = n.window;
  const Geometry& g = *geometry(size(n.outputs[0]));
  return int64_t(g.batch) * g.height * g.width * w.out_channels * w.kernel_h * w.kernel_w *
         (w.in_channels / w.groups);
}

// The rest of a convolution of segments; what it returns is as `lay_out_items` says.
const int64_t* Planner::finish_conv(int index, int64_t tile, int64_t vector, const std::vector<ConvSegment>& segments,
                                    const std::vector<int32_t>& first, Conv* conv) {
  const Window& w = node(index).window;
  conv->segments = keep_copy(segments);
  conv->first = keep_copy(first);
  conv->blocks = int64_t(first.size()) - 1;
  int planes = 1;
  for (const ConvSegment& s : segments) planes = std::max(planes, reads_of(w, s.channel, s.channels).planes());
  return lay_out_items(index, planes, segments[0].channels, tile, vector, conv);
}

namespace {

// Packed weights of a binary convolution, as a file has them: docs/format.md.
class FileBits {
 public:
  FileBits(const Window& w, const uint8_t* data)
      : data_(data), quads_((w.in_channels / w.groups + 3) / 4), taps_(w.kernel_h * w.kernel_w) {}

  // Weights of an output channel for a tap, of the four channels of its group's plane `plane`, where the group starts
  // at channel `shift` of plane 0. Other groups' channels have bits 1.
  int nibble(int channel, int tap, int plane, int shift) const {
    if (shift == 0) return at(channel, tap, plane);
    return (at(channel, tap, plane) << shift | at(channel, tap, plane - 1) >> (4 - shift)) & 15;
  }

  int quads() const { return quads_; }
  // [taps][quads] of an even channel, in the low nibble, and the next one, in the high nibble.
  const uint8_t* pair(int channel) const { return data_ + size_t(channel / 2) * size_t(taps_) * size_t(quads_); }

 private:
  int at(int channel, int tap, int quad) const {
    if (quad < 0 || quad >= quads_) return 15;
    const size_t row = size_t(channel / 2) * size_t(taps_) + size_t(tap);
    return data_[row * size_t(quads_) + size_t(quad)] >> 4 * (channel % 2) & 15;
  }

  const uint8_t* data_;
  int quads_, taps_;
};

}  // namespace

// A convolution whose lanes are output channels, but for its weights.
OutputsConv Planner::make_outputs_conv(int index) {
  const NodeInfo& n = node(index);
  const Map& in = input_of(index);
  const Geometry& g = *geometry(size(n.outputs[0]));
  const int planes = in.planes;
  std::vector<int32_t> pixels;
  for (int image = 0; image < g.batch; image++)
    for (int y = 0; y < g.height; y++)
      for (int x = 0; x < g.width; x++) pixels.push_back(int32_t((image * g.image_rows + y) * g.row_stride + x));
  OutputsConv c = {};
  c.input = in.body;
  c.offset = tap_offsets(index, in, planes);
  c.pixel = keep_copy(pixels);
  c.steps = n.window.kernel_h * n.window.kernel_w * planes;
  c.pixels = int32_t(pixels.size());
  c.channels = n.window.out_channels;
  return c;
}

void Planner::add_binary_outputs(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  OutputsConv c = make_outputs_conv(index);
  const int outputs = kernels->binary_outputs, lanes = outputs / 2, planes = ceil_div(w.in_channels, 4);
  const int64_t blocks = ceil_div(w.out_channels, outputs);
  const size_t bytes = size_t(blocks) * size_t(c.steps) * size_t(lanes);
  uint8_t* packed = keep<uint8_t>(bytes);
  c.weights = packed;
  const FileBits file(w, program_.tensors[size_t(n.params[0])].data);
  for (int block = 0; block < w.out_channels; block += outputs)
    for (int step = 0; step < c.steps; step++, packed += lanes)
      for (int j = 0; j < outputs && block + j < w.out_channels; j++)
        packed[j % lanes] |= uint8_t(file.nibble(block + j, step / planes, step % planes, 0) << 4 * (j / lanes));
  int32_t* valid = keep<int32_t>(size_t(c.pixels));
  for (int32_t i = 0; i < c.pixels; i++) {
    const Geometry& g = *geometry(size(n.outputs[0]));
    const int at = c.pixel[i] % (g.image_rows * g.row_stride);
    valid[i] = valid_rows(n, at / g.row_stride) * valid_columns(n, at % g.row_stride) * w.in_channels;
  }
  c.subtract = valid;
  const Epilogue* e = make_epilogue(n);
  const bool integer = all_shifting(*e);
  PlanStep& step = new_step(n, "conv_b1", integer ? "look_up_outputs_int" : "look_up_outputs");
  step.macs_b1 = macs(n);
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  const auto kernel = integer ? kernels->binary_outputs_conv_integer : kernels->binary_outputs_conv;
  step.run = parallel(n, blocks, [=](int64_t begin, int64_t end, int) { kernel(c, *e, begin, end); });
}

void Planner::add_q8_outputs(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  OutputsConv c = make_outputs_conv(index);
  const int outputs = kernels->q8_outputs, planes = ceil_div(w.in_channels, 4);
  const int64_t blocks = ceil_div(w.out_channels, outputs);
  const size_t step_bytes = 4 * size_t(outputs), bytes = size_t(blocks) * size_t(c.steps) * step_bytes;
  uint8_t* packed = keep<uint8_t>(bytes);
  c.weights = packed;
  const int8_t* file = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  int32_t* correction = keep<int32_t>(size_t(w.out_channels));
  std::vector<int8_t> quads(step_bytes);
  for (int block = 0; block < w.out_channels; block += outputs)
    for (int step = 0; step < c.steps; step++, packed += step_bytes) {
      std::fill(quads.begin(), quads.end(), int8_t(0));
      for (int j = 0; j < outputs && block + j < w.out_channels; j++) {
        const int8_t* quad = file + (size_t(block + j) * size_t(c.steps) + size_t(step)) * 4;
        const int channels = std::min(4, w.in_channels - step % planes * 4);
        for (int b = 0; b < channels; b++) {
          quads[size_t(4 * j + b)] = quad[b];
          correction[block + j] += quad[b] * w.zero_point;
        }
      }
      kernels->pack_q8_outputs(quads.data(), packed);
    }
  c.subtract = correction;
  const Epilogue* e = make_epilogue(n);
  PlanStep& step = new_step(n, "conv_q8", "dot_outputs");
  step.macs_q8 = macs(n);
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, blocks, [=](int64_t begin, int64_t end, int) { kernels->q8_outputs_conv(c, *e, begin, end); });
}

void Planner::add_binary_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  if (w.groups == 1 && is_narrow(n) && lanes_are_outputs(*s_.kernels_, *geometry(size(n.outputs[0])), w.out_channels, true)) return add_binary_outputs(index);
  if (words_.count(index)) return add_words_conv(index);
  if (spread_.count(index)) return add_tile_conv(index);
  std::vector<int32_t> first;
  std::vector<ConvSegment> segments = make_segments(index, kBinaryChannels, true, &first);
  size_t bytes = 0;
  for (ConvSegment& s : segments) {
    s.pairs = s.channels > 4 ? 4 : s.channels > 2 ? 2 : 1;
    bytes += size_t(s.steps) * size_t(s.pairs);
  }
  uint8_t* packed = keep<uint8_t>(bytes);
  const int taps = w.kernel_h * w.kernel_w;
  const FileBits file(w, program_.tensors[size_t(n.params[0])].data);
  for (ConvSegment& s : segments) {
    s.weights = packed;
    const Reads reads = reads_of(w, s.channel, s.channels);
    if (s.channel % 2 == 0 && reads.first % 4 == 0 && s.steps == taps * file.quads()) {  // as in the file, a pair at a time
      for (int j = 0; 2 * j < s.channels; j++) {
        const uint8_t* pair = file.pair(s.channel + 2 * j);
        for (int k = 0; k < s.steps; k++) packed[size_t(k) * size_t(s.pairs) + size_t(j)] = pair[k];
      }
      packed += size_t(s.steps) * size_t(s.pairs);
      continue;
    }
    for (int tap = 0; tap < taps; tap++)
      for (int plane = 0; plane < reads.planes(); plane++)
        for (int j = 0; j < s.pairs; j++) {
          int pair = 0;
          for (int half = 0; half < 2; half++)
            if (2 * j + half < s.channels)
              pair |= file.nibble(s.channel + 2 * j + half, tap, plane, reads.first % 4) << 4 * half;
          *packed++ = uint8_t(pair);
        }
  }
  BinaryConv c = {};
  const KernelTable* kernels = s_.kernels_;
  const int64_t* ends = finish_conv(index, kMaxTile, kernels->binary_vector, segments, first, &c);
  make_valid(n, &c);
  make_cuts(n, &c);
  const Epilogue* e = make_epilogue(n);
  make_quant4(n, *e, &c);
  const bool integer = all_shifting(*e);
  const char* names[] = {"look_up", "look_up_masked", "look_up_int", "look_up_masked_int"};
  PlanStep& step = new_step(n, "conv_b1", names[2 * integer + (segments[0].mask != nullptr)]);
  step.macs_b1 = macs(n);
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  const auto kernel = integer ? kernels->binary_conv_integer : kernels->binary_conv;
  step.run = parallel(n, c.blocks * ((int64_t(c.end) + kMaxTile - 1) / kMaxTile),
                      [=](int64_t begin, int64_t end, int) { kernel(c, *e, begin, end); }, ends,
                      w.groups == 1 && kernels->binary_vector == int(kTile));
}

// Halves of the sums are what words give, of an even number of channels.
bool Planner::uses_words(const NodeInfo& n) const {
  const Window& w = n.window;
  if (!s_.kernels_->words_conv || n.op != Op::kConvB1 || w.groups != 1 || !has_half_sums(n)) return false;
  const Geometry& g = *geometry(size(n.outputs[0]));
  if (lanes_are_outputs(*s_.kernels_, g, w.out_channels, true)) return false;
  return words_pay(g, w.kernel_h * w.kernel_w, w.in_channels, w.out_channels, has_cuts(n), uses_tiles(n));
}

namespace {

bool fits_words(const Geometry& g, int channels, int slots) {
  return size_t(ceil_div(channels, 64)) * size_t(slots) <= kMaxBuffer / (sizeof(uint64_t) * (g.plane + kTile));
}

}  // namespace

bool Planner::takes_words(int index) const {
  const NodeInfo& n = node(index);
  const Repack* repack = repack_of_[size_t(index)];
  return uses_words(n) && fits_words(*input_of(index).geometry, n.window.in_channels, repack ? repack->slots() : 1);
}

// All taps of all pixels lie in the image or the halo around it. Pixels are gathered one by one: no two need to be neighbours.
bool Planner::reads_words_in_place(const NodeInfo& n) const {
  if (is_direct(n) || !uses_words(n)) return false;
  const Geometry& g = *geometry(size(n.inputs[0]));
  return fits_words(g, n.window.in_channels, 1) && halo_in_place(n) <= g.halo;
}

// The halo that a convolution reaches into, in front of the image or behind it: its taps, and pixels' own places, which padding beyond a
// kernel leaves behind; so each image's pixels come before the next one's.
int64_t Planner::halo_in_place(const NodeInfo& n) const {
  const Window& w = n.window;
  const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
  const auto reached = [](int limit, int results, int kernel, int stride, int pad, int dilation) {
    const int64_t place = int64_t(results - 1) * stride, last = std::max(place, place + int64_t(kernel - 1) * dilation - pad);
    return std::max<int64_t>(pad, last + 1 - limit);
  };
  return std::max(reached(in.height, out.height, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h),
                  reached(in.width, out.width, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w));
}

// As many as leave the gathered words of a tile in the first-level cache, or nearly.
int Planner::words_tile(const NodeInfo& n, int steps) const {
  const bool large = size_t(kMaxTile) * size_t(steps) * sizeof(uint64_t) > cache_bytes(1);
  return large || geometry(size(n.outputs[0]))->end <= size_t(kTile) ? kTile : kMaxTile;
}

// A thread holds what four tiles read, with the rows around each, or all of it: then rows that two tiles read are seldom spread twice.
Planner::Words Planner::lay_out_words(int index) const {
  const NodeInfo& n = node(index);
  const Map& in = input_of(index);
  const Geometry &g = *geometry(size(n.outputs[0])), &from = *in.geometry;
  const bool repacked = repack_of_[size_t(index)] != nullptr;
  const int taps = n.window.kernel_h * n.window.kernel_w;
  Words words;
  words.slot_words = ceil_div(n.window.in_channels, 64);
  if (word_maps_.count(n.inputs[0])) {
    words.plane = in.plane_bytes / sizeof(uint64_t);
    return words;
  }
  for (int tap = 0; tap < taps; tap++) {
    int slot = 0;
    const int64_t at = tap_position(index, from, tap, &slot);
    words.reach[0] = tap ? std::min(words.reach[0], at) : at;
    words.reach[1] = tap ? std::max(words.reach[1], at + 1) : at + 1;
  }
  const int64_t stride_h = repacked ? 1 : n.window.stride_h, stride_w = repacked ? 1 : n.window.stride_w;
  const int64_t image = int64_t(g.height - 1) * stride_h * from.row_stride, row = int64_t(g.width - 1) * stride_w;
  const int64_t all = int64_t(g.batch - 1) * from.image_rows * from.row_stride + image + row;
  // From a tile's first pixel to its last: at each of its ends of rows to the next row, or to the next image.
  const int64_t tile = words_tile(n, taps * words.slot_words), rows = (tile - 1) / g.row_stride + 1;
  const int64_t step = std::max(stride_h * from.row_stride, g.batch > 1 ? int64_t(from.image_rows) * from.row_stride - image : 0);
  const int64_t most = rows * step + std::min(tile, int64_t(g.width) - 1) * stride_w;
  const int64_t around = words.reach[1] - words.reach[0] + 2 * kTile;  // and what vectors begin before and end behind
  words.room = int64_t(round_up(size_t(std::min(all, 4 * (most + around)) + around), kTile));
  words.plane = size_t(words.room) + kTile / 8;  // an odd number of cache lines
  return words;
}

namespace {

// Which taps along one axis lie outside the image, for each row or column of the result: kinds, and one result's.
struct Kinds {
  std::vector<std::vector<bool>> outside;
  std::vector<int> of;
};

Kinds kinds_of(int results, int kernel, int stride, int pad, int dilation, int limit, bool padded_with_bits) {
  Kinds kinds;
  std::map<std::vector<bool>, int> known;
  for (int at = 0; at < results; at++) {
    std::vector<bool> outside(size_t(kernel), false);
    for (int k = 0; k < kernel && !padded_with_bits; k++) {
      const int64_t from = int64_t(at) * stride - pad + int64_t(k) * dilation;
      outside[size_t(k)] = from < 0 || from >= limit;
    }
    const auto found = known.emplace(outside, int(kinds.outside.size()));
    if (found.second) kinds.outside.push_back(outside);
    kinds.of.push_back(found.first->second);
  }
  return kinds;
}

// The low or the high nibbles of up to 16 bytes, the first one lowest.
uint64_t word_of(const uint8_t* pairs, int count, bool high) {
  uint64_t bytes[2] = {0, 0}, word = 0;
  std::memcpy(bytes, pairs, size_t(count));
  for (int half = 0; half < 2; half++) {
    uint64_t x = bytes[half] >> (high ? 4 : 0) & 0x0F0F0F0F0F0F0F0F;
    x = (x | x >> 4) & 0x00FF00FF00FF00FF;
    x = (x | x >> 8) & 0x0000FFFF0000FFFF;
    x = (x | x >> 16) & 0x00000000FFFFFFFF;
    word |= x << 32 * half;
  }
  return word;
}

// Not by an instruction that the oldest CPUs lack, nor by GCC's call for it, which takes longer than all else that is done here.
int count_ones(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
  return int(x * 0x0101010101010101 >> 56);
}

}  // namespace

// A tap outside the image is a word of zeros: its mismatches are the ones of its weights, which are added here as the valid taps'
// matches are.
std::vector<int32_t> Planner::make_words_pixels(int index, const std::vector<int16_t>& ones, WordsConv* c) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const Size in = size(n.inputs[0]);
  const Geometry &g = *geometry(size(n.outputs[0])), &from = *input_of(index).geometry;
  const bool repacked = repack_of_[size_t(index)] != nullptr;
  const int stride_h = repacked ? 1 : w.stride_h, stride_w = repacked ? 1 : w.stride_w;
  charge(size_t(g.height + g.width) * sizeof(int));
  const Kinds rows = kinds_of(g.height, w.kernel_h, w.stride_h, w.pad_h, w.dilation_h, in.height, w.pad_value != 0);
  const Kinds columns = kinds_of(g.width, w.kernel_w, w.stride_w, w.pad_w, w.dilation_w, in.width, w.pad_value != 0);
  const int kinds_a_row = int(columns.outside.size()), kinds = int(rows.outside.size()) * kinds_a_row;
  const size_t pixels = size_t(g.batch) * size_t(g.height) * size_t(g.width), channels = size_t(c->blocks) * kBinaryChannels;
  int32_t* pixel = keep<int32_t>(pixels);
  int32_t* start_at = keep<int32_t>(pixels);
  charge(pixels * sizeof(int32_t));
  std::vector<int32_t> places(pixels);
  int32_t* at = places.data();
  c->pixel = pixel;
  c->start_at = start_at;
  for (int image = 0; image < g.batch; image++)
    for (int y = 0; y < g.height; y++)
      for (int x = 0; x < g.width; x++) {
        *at++ = (image * g.image_rows + y) * g.row_stride + x;
        *start_at++ = (rows.of[size_t(y)] * kinds_a_row + columns.of[size_t(x)]) * int32_t(channels);
        *pixel++ = (image * from.image_rows + y * stride_h) * from.row_stride + x * stride_w;
      }
  const int taps = w.kernel_h * w.kernel_w;
  int16_t* start = keep<int16_t>(size_t(kinds) * channels);
  std::vector<int> valid(size_t(kinds), 0);
  std::vector<std::vector<int>> outside(static_cast<size_t>(kinds));  // taps
  for (int k = 0; k < kinds; k++)
    for (int tap = 0; tap < taps; tap++)
      if (rows.outside[size_t(k / kinds_a_row)][size_t(tap / w.kernel_w)] ||
          columns.outside[size_t(k % kinds_a_row)][size_t(tap % w.kernel_w)])
        outside[size_t(k)].push_back(tap);
      else
        valid[size_t(k)] += w.in_channels;
  for (int channel = 0; channel < w.out_channels; channel++)
    for (int k = 0; k < kinds; k++) {
      int sum = valid[size_t(k)] / 2;
      for (const int tap : outside[size_t(k)]) sum += ones[size_t(channel) * size_t(taps) + size_t(tap)];
      start[size_t(k) * channels + size_t(channel)] = int16_t(sum);
    }
  c->start = start;
  if (!c->above) return places;
  int64_t* cut = keep<int64_t>(size_t(kinds) * channels);
  for (size_t i = 0; i < size_t(kinds) * channels; i++) {
    const size_t channel = i % channels;
    cut[i] = channel < size_t(w.out_channels) ? int64_t(start[i]) - c->above[channel] : 0;
  }
  c->cut = cut;
  return places;
}

// Tiles of positions, and where in them their pixels' results stand. They begin at vectors, and the vector where a thread's share of the
// pixels ends is one of its own: but for it, shares have no tile in common.
Planner::Shares Planner::make_words_tiles(const Geometry& g, const std::vector<int32_t>& at, WordsConv* c) {
  const int64_t vector = s_.kernels_->binary_vector, vectors = (int64_t(g.end) + vector - 1) / vector, widest = c->tile / vector;
  const int64_t threads = s_.options_.threads, pixels = int64_t(at.size());
  std::vector<int32_t> start = {0};
  for (int64_t share = 1; share < threads && widest > 1; share++) {
    const int64_t divided = at[size_t(pixels * share / threads)] / vector;
    cut_evenly(divided, widest, &start);
    cut_evenly(divided + 1, widest, &start);
  }
  cut_evenly(vectors, widest, &start);
  for (int32_t& position : start) position *= int32_t(vector);
  const size_t tiles = start.size() - 1;
  std::vector<int32_t> first;
  uint8_t* place = keep<uint8_t>(at.size());
  for (int32_t i = 0; i < int32_t(pixels); i++) {
    while (first.size() < tiles && at[size_t(i)] >= start[first.size()]) first.push_back(i);
    const int in_tile = at[size_t(i)] - start[first.size() - 1], within = in_tile % int(vector), pair = within / 2;
    place[i] = uint8_t(c->above ? in_tile : in_tile - within + within % 2 * (int(vector) / 2) + pair % 8 * 4 + pair / 8);
  }
  first.resize(tiles + 1, int32_t(pixels));
  std::vector<int64_t> ends;
  for (int64_t share = 1; share < threads; share++) {
    const int64_t pixel = pixels * share / threads;
    const auto tile = std::upper_bound(first.begin(), first.end(), pixel) - 1;  // it lies there
    ends.push_back((tile - first.begin()) * c->blocks + (pixel - tile[0]) * c->blocks / (tile[1] - tile[0]));
  }
  c->first = keep_copy(first);
  c->place = place;
  c->position = keep_copy(start);
  return {int64_t(tiles), ends};
}

// Of a result that lies as words: tiles of pixels, none of which two shares have in common, where there are pixels enough; and what readers
// see outside the image.
Planner::Shares Planner::make_words_result(int value, const std::vector<int32_t>& at, WordsConv* c) {
  constexpr int64_t kLeastShare = 32;  // fewer pixels a thread use the weights too seldom: blocks of channels are shared out
  const Map& m = map(value);
  const Geometry& g = *m.geometry;
  const int64_t threads = s_.options_.threads, pixels = int64_t(at.size()), groups = (pixels + kWordsPixels - 1) / kWordsPixels;
  const int64_t widest = c->tile / kWordsPixels, shares = pixels >= kLeastShare * threads ? threads : 1;
  std::vector<int32_t> first = {0};
  std::vector<int64_t> ends;
  for (int64_t share = 1; share <= shares; share++) {
    cut_evenly(groups * share / shares, widest, &first);
    if (share < shares) ends.push_back(int64_t(first.size() - 1) * c->blocks);
  }
  for (int32_t& pixel : first) pixel = int32_t(std::min<int64_t>(pixel * int64_t(kWordsPixels), pixels));
  const int64_t tiles = int64_t(first.size()) - 1;
  const bool seen_outside = seen_[size_t(value)] != Seen::kPixels;
  const int32_t around = seen_outside ? g.halo * (g.row_stride + 1) : 0;
  const size_t gap_count = seen_outside ? g.end + 2 * size_t(around) - at.size() : 0;
  charge(gap_count * sizeof(int32_t));
  std::vector<int32_t> gaps, first_gap;
  gaps.reserve(gap_count);
  int32_t next = -around;
  for (size_t i = 0; i < at.size(); i++) {
    if (int32_t(i) == first[first_gap.size()]) first_gap.push_back(int32_t(gaps.size()));
    for (; seen_outside && next < at[i]; next++) gaps.push_back(next);
    next = at[i] + 1;
  }
  for (; next < int32_t(g.end) + around; next++) gaps.push_back(next);
  first_gap.push_back(int32_t(gaps.size()));
  c->first = keep_copy(first);
  c->to = reinterpret_cast<uint64_t*>(m.body);
  c->to_plane = m.plane_bytes / sizeof(uint64_t);
  c->at = keep_copy(at);
  if (!gaps.empty()) c->gap = keep_copy(gaps);
  c->first_gap = keep_copy(first_gap);
  c->halo = words_outside(m, info(value).channels);
  return {tiles, ends};
}

// What stands outside the image, of each word of a map of bits.
const uint64_t* Planner::words_outside(const Map& m, int channels) {
  uint64_t* outside = keep<uint64_t>(size_t(ceil_div(channels, 64)));
  const int planes = ceil_div(channels, 4);
  for (int plane = 0; plane < planes; plane++) {
    const uint64_t halo = plane + 1 == planes ? m.last_halo : m.halo;
    outside[plane / 16] |= (halo & 15) << 4 * (plane % 16);
  }
  return outside;
}

void Planner::add_words_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  const Map& in = input_of(index);
  const Words& laid_out = words_.at(index);
  const Repack* repack = repack_of_[size_t(index)];
  const int taps = w.kernel_h * w.kernel_w, words = laid_out.slot_words;
  WordsConv c = {};
  if (laid_out.room) {
    c.nibbles = in.body;
    c.nibble_plane = in.plane_bytes;
    c.outside = words_outside(in, w.in_channels);
    // Phases of a stride have rows of the image behind their last results.
    c.body = int64_t(in.geometry->body + (repack ? in.geometry->margin : 0));
  } else {
    c.words = reinterpret_cast<const uint64_t*>(in.body);
  }
  c.planes = ceil_div(w.in_channels, 4);
  c.slot_words = words;
  c.word_planes = words * (repack ? repack->slots() : 1);
  c.word_plane = laid_out.plane;
  c.room = laid_out.room;
  std::copy_n(laid_out.reach, 2, c.reach);
  c.steps = taps * words;
  c.channels = w.out_channels;
  c.blocks = ceil_div(w.out_channels, kBinaryChannels);
  c.tile = words_tile(n, c.steps);
  int32_t *offset = keep<int32_t>(size_t(c.steps)), *next_offset = offset;
  for (int tap = 0; tap < taps; tap++) {
    int slot = 0;
    const int64_t at = tap_position(index, *in.geometry, tap, &slot);
    for (int word = 0; word < words; word++) *next_offset++ = int32_t(at + (slot * words + word) * int64_t(c.word_plane));
  }
  c.offset = offset;
  const size_t block_words = size_t(c.steps) * kBinaryChannels, weights = size_t(c.blocks) * block_words;
  uint64_t* packed = keep<uint64_t>(weights);
  c.weights = packed;
  const FileBits file(w, program_.tensors[size_t(n.params[0])].data);
  const size_t all_taps = size_t(w.out_channels) * size_t(taps);
  charge(all_taps * sizeof(int16_t));
  std::vector<int16_t> ones(all_taps);  // of each channel's weights for each tap
  int16_t* next_ones = ones.data();
  for (int channel = 0; channel < w.out_channels; channel++) {
    const uint8_t* pairs = file.pair(channel);
    uint64_t* to = packed + size_t(channel / kBinaryChannels) * block_words + channel % kBinaryChannels;
    uint64_t sum = 0;
    for (int tap = 0, k = 0; tap < taps; tap++, pairs += c.planes, next_ones++)
      for (int first = 0; first < c.planes; first += 16, k++, to += kBinaryChannels) {
        uint64_t word = word_of(pairs + first, std::min(16, c.planes - first), channel % 2);
        const int channels = w.in_channels - 4 * first;
        if (channels < 64) word &= (uint64_t(1) << channels) - 1;
        *next_ones = int16_t(*next_ones + count_ones(word));
        sum ^= word;
        *to = (c.steps - k) % 2 ? sum : word;
      }
  }
  make_cuts(n, &c);
  const std::vector<int32_t> at = make_words_pixels(index, ones, &c);
  const int result = n.outputs[0];
  const Shares shares =
      word_maps_.count(result) ? make_words_result(result, at, &c) : make_words_tiles(*map(result).geometry, at, &c);
  c.ahead = ceil_div(c.steps, std::max(1, int(int64_t(at.size()) / (shares.tiles * kWordsPixels))));
  const Epilogue* e = make_epilogue(n);
  make_quant4(n, *e, &c);
  const bool integer = all_shifting(*e);
  PlanStep& step = new_step(n, "conv_b1", integer ? "words_int" : "words");
  step.macs_b1 = macs(n);
  step.bytes += weights * sizeof(uint64_t);
  if (!c.words) step.bytes += size_t(c.word_planes) * in.geometry->body * sizeof(uint64_t);
  s_.weight_bytes_ += weights * sizeof(uint64_t);
  const auto kernel = integer ? kernels->words_conv_integer : kernels->words_conv;
  step.run = in_rooms(index, shares.tiles * c.blocks, [=](const ThreadRoom& room, int64_t begin, int64_t end) {
    kernel(c, *e, room, begin, end);
  }, shares.ends.empty() ? nullptr : keep_copy(shares.ends));
}

// Matrix tiles multiply, which programs in integers are made to do without.
bool Planner::uses_tiles(const NodeInfo& n) const {
  const Window& w = n.window;
  if (!s_.kernels_->tile_conv || n.op != Op::kConvB1 || w.groups != 1 || !is_narrow(n)) return false;
  if (!tiles_pay(w.in_channels, w.out_channels)) return false;
  if (lanes_are_outputs(*s_.kernels_, *geometry(size(n.outputs[0])), w.out_channels, true)) return false;
  return std::none_of(program_.values.begin(), program_.values.end(), [](const ValueInfo& v) { return is_planar(v.type); });
}

bool Planner::uses_q8_tiles(const NodeInfo& n) const {
  const Window& w = n.window;
  return s_.kernels_->tile_q8_conv && n.op == Op::kConvQ8 && w.groups == 1 &&
         q8_tiles_pay(w.kernel_h * w.kernel_w * ceil_div(w.in_channels, 4), w.out_channels) &&
         !lanes_are_outputs(*s_.kernels_, *geometry(size(n.outputs[0])), w.out_channels, false);
}

// All, for many positions: their weights are spread once a block. For a single tile of positions a few at a time, whose weights
// leave room in the first-level cache.
int Planner::taps_a_strip(const NodeInfo& n, int chunks) const {
  const int taps = n.window.kernel_h * n.window.kernel_w;
  if (geometry(size(n.outputs[0]))->end > size_t(kMaxTile)) return taps;
  return std::clamp(int(cache_bytes(1) / 2) / (chunks * kTileChannels * 64), 1, taps);
}

void Planner::add_tile_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  const Map &in = input_of(index), &spread = spread_.at(index);
  const Repack* repack = repack_of_[size_t(index)];
  TileConv c = {};
  c.nibbles = in.body;
  c.nibble_plane = in.plane_bytes;
  c.planes = in.planes;
  c.quads = spread.body;
  c.quad_plane = spread.plane_bytes;
  c.slot_planes = spread.planes;
  c.margin = in.geometry->margin;
  c.positions = in.geometry->plane;
  c.offset = tap_offsets(index, spread, 1);
  c.taps = w.kernel_h * w.kernel_w;
  c.chunks = ceil_div(c.planes, kTilePlanes);
  c.rows = ceil_div(c.planes, c.chunks);
  c.taps_a_strip = taps_a_strip(n, c.chunks);
  c.channels = w.out_channels;
  c.end = in.geometry->end;
  const auto lowest = [](int bits) { return bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1; };
  c.whole = lowest(4 * c.rows);
  c.last = lowest(w.in_channels - 4 * c.rows * (c.chunks - 1));
  const int64_t blocks = ceil_div(w.out_channels, kTileChannels);
  const size_t steps = size_t(c.taps) * size_t(c.chunks), weights = size_t(blocks) * steps * kTileChannels;
  uint64_t* packed = keep<uint64_t>(weights);
  c.weights = packed;
  const FileBits file(w, program_.tensors[size_t(n.params[0])].data);
  for (int channel = 0; channel < w.out_channels; channel++) {
    const uint8_t* pair = file.pair(channel);
    uint64_t* to = packed + size_t(channel / kTileChannels) * steps * kTileChannels + channel % kTileChannels;
    for (int tap = 0; tap < c.taps; tap++)
      for (int plane = 0; plane < c.planes; plane++) {
        const uint64_t nibble = uint64_t(*pair++ >> 4 * (channel % 2) & 15);
        to[size_t(tap * c.chunks + plane / c.rows) * kTileChannels] |= nibble << 4 * (plane % c.rows);
      }
  }
  make_cuts(n, &c);
  const Epilogue* e = make_epilogue(n);
  make_quant4(n, *e, &c);
  PlanStep& step = new_step(n, "conv_b1", "tiles");
  step.macs_b1 = macs(n);
  step.bytes += weights * sizeof(uint64_t) + spread.plane_bytes * size_t(spread.planes);
  s_.weight_bytes_ += weights * sizeof(uint64_t);
  const int64_t tiles = (int64_t(c.end) + kMaxTile - 1) / kMaxTile;
  const auto convolve = in_rooms(index, blocks * tiles, [=](const ThreadRoom& room, int64_t begin, int64_t end) {
    kernels->tile_conv(c, *e, room, begin, end);
  });
  const auto spread_input = share_out({}, int64_t(c.planes) * (repack ? repack->slots() : 1),
                                      [=](int64_t begin, int64_t end, int) { kernels->tile_spread(c, begin, end); });
  step.run = [=] {
    spread_input();
    convolve();
  };
}

void Planner::add_tile_q8_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  const Map& in = input_of(index);
  TileQ8Conv c = {};
  c.input = in.body;
  c.offset = tap_offsets(index, in, in.planes);
  c.steps = taps_read(index) * in.planes;
  c.chunks = ceil_div(c.steps, kTilePlanes);
  c.channels = w.out_channels;
  c.end = in.geometry->end;
  const size_t row = 64, block_bytes = size_t(c.chunks) * kTileChannels * row;
  const size_t bytes = size_t(ceil_div(w.out_channels, kTileChannels)) * block_bytes;
  int8_t* packed = keep<int8_t>(bytes);
  int32_t* correction = keep<int32_t>(size_t(w.out_channels));
  const int8_t* file = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  const Repack* hosts = with_guests(index);
  const size_t in_file = size_t(w.kernel_h) * size_t(w.kernel_w) * size_t(in.planes) * 4;
  for (int channel = 0; channel < w.out_channels; channel++, file += in_file) {
    int8_t* to = packed + size_t(channel / kTileChannels) * block_bytes + size_t(channel % kTileChannels) * row;
    for (int step = 0; step < c.steps; step++)
      for (int b = 0; b < 4; b++) {
        const int at = hosts ? hosts->weights[size_t(4 * step + b)] : step % in.planes * 4 + b < w.in_channels ? 4 * step + b : -1;
        if (at < 0) continue;
        to[size_t(step / kTilePlanes) * kTileChannels * row + size_t(step % kTilePlanes * 4 + b)] = file[at];
        correction[channel] += file[at] * w.zero_point;
      }
  }
  c.weights = packed;
  c.correction = correction;
  const Epilogue* e = make_epilogue(n);
  const Room room = room_.at(index);
  PlanStep& step = new_step(n, "conv_q8", "tiles");
  step.macs_q8 = macs(n);
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, (int64_t(c.end) + kMaxTile - 1) / kMaxTile, [=](int64_t begin, int64_t end, int thread) {
    kernels->tile_q8_conv(c, *e, room.of(thread), begin, end);
  });
}

void Planner::add_q8_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  if (w.groups == 1 && lanes_are_outputs(*s_.kernels_, *geometry(size(n.outputs[0])), w.out_channels, false)) return add_q8_outputs(index);
  const KernelTable* kernels = s_.kernels_;
  if (room_.count(index)) return add_tile_q8_conv(index);
  std::vector<int32_t> first;
  std::vector<ConvSegment> segments = make_segments(index, kQ8Channels, false, &first);
  const int8_t* file = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  int32_t* correction = keep<int32_t>(size_t(w.out_channels));
  const int pack = kernels->q8_pack;
  Q8Runs* runs = keep<Q8Runs>(segments.size() * size_t(kQ8Channels / pack));
  const size_t step_bytes = size_t(pack) * size_t(kernels->q8_quad_bytes);
  const int in_group = w.in_channels / w.groups, in_file = (in_group + 3) / 4 * 4, taps = w.kernel_h * w.kernel_w;
  const Repack* hosts = with_guests(index);
  size_t bytes = 0;
  Q8Runs* next_runs = runs;
  std::vector<int8_t> quads;  // [steps][pack][4]
  std::vector<int32_t> order, offset;
  std::vector<uint8_t> packed;
  for (ConvSegment& s : segments) {
    const Reads reads = reads_of(w, s.channel, s.channels);
    offset.clear();
    packed.clear();
    bool in_order = true;
    for (int first_channel = 0; first_channel < kQ8Channels; first_channel += pack) {
      quads.assign(size_t(s.steps) * size_t(pack) * 4, 0);
      for (int j = 0; j < pack; j++) {
        if (first_channel + j >= s.channels) continue;
        const int channel = s.channel + first_channel + j;
        // the first plane's first channel, counted from the first of this output channel's own group
        const int own = 4 * reads.plane() - reads_of(w, channel, 1).first;
        const int8_t* row = file + size_t(channel) * size_t(taps) * size_t(in_file);
        int8_t* quad = quads.data() + 4 * j;
        if (hosts) {
          for (int step = 0; step < s.steps; step++, quad += 4 * pack)
            for (int b = 0; b < 4; b++) {
              const int at = hosts->weights[size_t(4 * step + b)];
              if (at >= 0) quad[b] = row[at];
              correction[channel] += quad[b] * w.zero_point;
            }
          continue;
        }
        for (int tap = 0; tap < taps; tap++, row += in_file)
          for (int plane = 0; plane < reads.planes(); plane++, quad += 4 * pack) {
            const int at = own + 4 * plane;
            for (int b = 0; b < 4; b++)
              if (at + b >= 0 && at + b < in_group) quad[b] = row[at + b];
            correction[channel] += (quad[0] + quad[1] + quad[2] + quad[3]) * w.zero_point;
          }
      }
      const size_t start = packed.size();
      packed.resize(start + 2 * size_t(s.steps) * step_bytes);
      order.resize(2 * size_t(s.steps));
      const int32_t steps = kernels->pack_q8(quads.data(), s.steps, packed.data() + start, order.data(), next_runs++);
      packed.resize(start + size_t(steps) * step_bytes);
      in_order = in_order && pack == kQ8Channels && steps == s.steps;
      for (int32_t k = 0; k < steps; k++) {
        in_order = in_order && order[size_t(k)] == k;
        offset.push_back(s.offset[order[size_t(k)]]);
      }
    }
    bytes += packed.size();
    s.weights = keep_copy(packed);
    if (in_order) continue;
    bytes += offset.size() * sizeof(int32_t);
    s.offset = keep_copy(offset);
  }
  Q8Conv c = {};
  const int64_t* ends = finish_conv(index, kTile, kTile, segments, first, &c);
  c.correction = correction;
  c.runs = runs;
  const Epilogue* e = make_epilogue(n);
  PlanStep& step = new_step(n, "conv_q8", "dot");
  step.macs_q8 = macs(n);
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, c.blocks * ((int64_t(c.end) + kTile - 1) / kTile),
                      [=](int64_t begin, int64_t end, int) { kernels->q8_conv(c, *e, begin, end); }, ends, true);
}

namespace {

// A signed power of two: of a weight's tap.
struct Digit {
  int32_t offset;
  bool negative;
};

// The digits of a number from -128 to 127 in non-adjacent form, by their powers.
constexpr int kPowers = 8;
void add_digits(int weight, int32_t offset, std::vector<Digit>* powers) {
  for (int power = 0; weight; power++, weight /= 2) {
    if (weight % 2 == 0) continue;
    const int digit = (weight & 3) == 3 ? -1 : 1;
    powers[power].push_back({offset, digit < 0});
    weight -= digit;
  }
}
// How many: the bits that differ between x and 3 * x.
int digit_count(int weight) { return __builtin_popcount(unsigned(weight) ^ (3 * unsigned(weight))); }

struct Runs {
  std::vector<ShiftRun> runs;
  std::vector<int32_t> offset;
};

// Of a channel's digits, highest power first. Sums of bytes go on for as long as they surely fit kShiftTaps.
void make_runs(std::vector<Digit>* powers, bool bytes, Runs* made) {
  const size_t most = bytes ? size_t(kShiftTaps) : size_t(kWrapped);
  int above = 0, total = 0;  // the power of the run before, and of the last one whose sums were added to the total
  size_t taps = 0;           // since then, times their powers
  for (int power = kPowers - 1; power >= 0; power--) {
    std::vector<Digit>& digits = powers[power];
    for (size_t start = 0; start < digits.size(); start += most) {
      const size_t count = std::min(most, digits.size() - start);
      const int shift = above ? above - power : 0;
      if (taps && (taps << shift) + count <= most) {
        made->runs.back().total = -1;
        taps = (taps << shift) + count;
      } else {
        total = taps ? above : power;
        taps = count;
      }
      const auto first = digits.begin() + int64_t(start), end = first + int64_t(count);
      const auto middle = std::stable_partition(first, end, [](const Digit& d) { return !d.negative; });
      made->runs.push_back({shift, int32_t(middle - first), int32_t(end - middle), total - power});
      for (auto d = first; d < end; d++) made->offset.push_back(d->offset);
      above = power;
    }
  }
  if (above) made->runs.push_back({above, 0, 0, above});
}

}  // namespace

// Whether all weights, but those that pad the input channels to a multiple of 4, are -1 or +1.
static bool only_signs(const Window& w, const int8_t* file) {
  const int in_file = (w.in_channels + 3) / 4 * 4;
  const int64_t rows = int64_t(w.out_channels) * w.kernel_h * w.kernel_w;
  for (int64_t row = 0; row < rows; row++, file += in_file)
    for (int i = 0; i < w.in_channels; i++)
      if (file[i] != 1 && file[i] != -1) return false;
  return true;
}

void Planner::add_signs_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const Map& in = input_of(index);
  const KernelTable* kernels = s_.kernels_;
  const int in_file = (w.in_channels + 3) / 4 * 4, taps = w.kernel_h * w.kernel_w;
  SignsConv c = {};
  c.input = in.body;
  c.offset = tap_offsets(index, input_of(index), w.in_channels);
  c.steps = taps * w.in_channels;
  c.fours = ceil_div(c.steps, 4);
  c.channels = w.out_channels;
  const size_t bytes = size_t(c.channels) * size_t(c.fours);
  uint8_t* patterns = keep<uint8_t>(bytes);
  std::memset(patterns, 0, bytes);
  c.patterns = patterns;
  const int8_t* row = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  for (int channel = 0; channel < c.channels; channel++, patterns += c.fours)
    for (int tap = 0, step = 0; tap < taps; tap++, row += in_file)
      for (int i = 0; i < w.in_channels; i++, step++) patterns[step / 4] |= uint8_t((row[i] > 0) << step % 4);
  c.blocks = ceil_div(c.channels, kSignsChannels);
  const int64_t* ends = lay_out_items(index, w.in_channels, kSignsChannels, kMaxTile, kernels->binary_vector, &c);
  const Epilogue* e = make_epilogue(n);
  PlanStep& step = new_step(n, "conv_shift", "signs");
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, c.blocks * ((int64_t(c.end) + kMaxTile - 1) / kMaxTile),
                      [=](int64_t begin, int64_t end, int) { kernels->conv_signs(c, *e, begin, end); }, ends);
}

void Planner::add_shift_conv(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const Map& in = input_of(index);
  const KernelTable* kernels = s_.kernels_;
  const int in_group = w.in_channels / w.groups, in_file = (in_group + 3) / 4 * 4, taps = w.kernel_h * w.kernel_w;
  const int8_t* file = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  const bool bytes_in = info(n.inputs[0]).type == Type::kU8;
  if (w.groups == 1 && in.element == sizeof(int16_t) && only_signs(w, file)) return add_signs_conv(index);
  size_t digits = 0;  // counted before they are made
  for (size_t i = 0; i < program_.tensors[size_t(n.params[0])].count; i++) digits += size_t(digit_count(file[i]));
  if (w.groups == 1 && shift_lanes_are_outputs(*kernels, *geometry(size(n.outputs[0])), w.out_channels,
                                               int64_t(w.in_channels) * taps, int64_t(digits), bytes_in))
    return add_shift_outputs(index);
  const size_t bytes = digits * sizeof(int32_t);
  require_memory(charged_ + 2 * bytes + size_t(w.out_channels) * (kPowers + 1) * sizeof(ShiftRun));
  const int32_t* tap = tap_offsets(index, input_of(index), 1);
  Runs made;
  made.offset.reserve(digits);
  size_t *first_run = keep<size_t>(size_t(w.out_channels) + 1), *first_offset = keep<size_t>(size_t(w.out_channels));
  int32_t* subtract = keep<int32_t>(size_t(w.out_channels));
  std::vector<Digit> powers[kPowers];
  const int8_t* row = file;
  for (int channel = 0; channel < w.out_channels; channel++) {
    for (std::vector<Digit>& list : powers) list.clear();
    const int64_t first = int64_t(channel / (w.out_channels / w.groups)) * in_group;
    for (int t = 0; t < taps; t++, row += in_file)
      for (int i = 0; i < in_group; i++) {
        add_digits(row[i], int32_t(tap[t] + (first + i) * int64_t(in.plane_bytes)), powers);
        subtract[channel] += row[i] * w.zero_point;
      }
    first_run[channel] = made.runs.size();
    first_offset[channel] = made.offset.size();
    make_runs(powers, bytes_in, &made);
  }
  first_run[w.out_channels] = made.runs.size();
  ShiftConv c = {};
  c.input = in.body;
  c.runs = keep_copy(made.runs);
  c.offset = keep_copy(made.offset);
  c.first_run = first_run;
  c.first_offset = first_offset;
  c.subtract = subtract;
  c.channels = w.out_channels;
  c.element = int32_t(in.element);
  c.blocks = ceil_div(w.out_channels, kBinaryChannels);
  const int64_t* ends = lay_out_items(index, in_group, kBinaryChannels, kMaxTile, kernels->binary_vector, &c);
  const Epilogue* e = make_epilogue(n);
  PlanStep& step = new_step(n, "conv_shift", bytes_in ? "shift_bytes" : "shift_words");
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, c.blocks * ((int64_t(c.end) + kMaxTile - 1) / kMaxTile),
                      [=](int64_t begin, int64_t end, int) { kernels->conv_shift(c, *e, begin, end); }, ends);
}

void Planner::add_shift_outputs(int index) {
  const NodeInfo& n = node(index);
  const Window& w = n.window;
  const KernelTable* kernels = s_.kernels_;
  const int outputs = kernels->shift_outputs, taps = w.kernel_h * w.kernel_w, in_file = (w.in_channels + 3) / 4 * 4;
  const int64_t blocks = ceil_div(w.out_channels, outputs);
  ShiftOutputsConv c = {};
  static_cast<OutputsConv&>(c) = make_outputs_conv(index);
  c.element = int32_t(input_of(index).element);
  const int field = kernels->shift_index_bits, fields = 32 / field, chunk = field * fields;
  const size_t words = size_t(ceil_div(c.steps, chunk)), block_words = words * 8 * size_t(outputs);
  const size_t bytes = size_t(blocks) * block_words * sizeof(uint32_t);
  uint32_t* packed = keep<uint32_t>(bytes / sizeof(uint32_t));
  std::memset(packed, 0, bytes);
  c.weights = reinterpret_cast<const uint8_t*>(packed);
  int32_t* subtract = keep<int32_t>(size_t(w.out_channels));
  const int8_t* row = reinterpret_cast<const int8_t*>(program_.tensors[size_t(n.params[0])].data);
  for (int channel = 0; channel < w.out_channels; channel++) {
    uint32_t* lane = packed + size_t(channel / outputs) * block_words + size_t(channel % outputs);
    for (int t = 0, step = 0; t < taps; t++, row += in_file)
      for (int i = 0; i < w.in_channels; i++, step++) {
        const int within = step % chunk, at = field == 1 ? 31 - within : within;
        uint32_t* word = lane + size_t(step / chunk) * 8 * size_t(outputs);
        for (int bit = 0; bit < 8; bit++, word += outputs) *word |= uint32_t(uint8_t(row[i]) >> bit & 1) << at;
        subtract[channel] += row[i] * w.zero_point;
      }
  }
  c.subtract = subtract;
  const Epilogue* e = make_epilogue(n);
  PlanStep& step = new_step(n, "conv_shift", "shift_outputs");
  step.bytes += bytes;
  s_.weight_bytes_ += bytes;
  step.run = parallel(n, blocks, [=](int64_t begin, int64_t end, int) { kernels->conv_shift_outputs(c, *e, begin, end); });
}

}  // namespace signbit
