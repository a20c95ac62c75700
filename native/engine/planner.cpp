#include "planner.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#include "error.h"
#include "select.h"

namespace signbit {
namespace {

bool is_conv(const NodeInfo& n) { return n.op == Op::kConvB1 || n.op == Op::kConvQ8 || n.op == Op::kConvShift; }

size_t element_size(Type type) {
  return type == Type::kF32 || type == Type::kI32 || type == Type::kU8 ? 4 : type == Type::kI16 ? 2 : 1;
}

// The byte that a convolution wants to find outside the image.
uint8_t wanted_halo(const NodeInfo& n) {
  if (n.op == Op::kConvQ8 || n.op == Op::kConvShift) return uint8_t(n.window.zero_point);
  return n.window.pad_value == 0 ? kOutside : n.window.pad_value > 0 ? uint8_t(15) : uint8_t(0);
}

bool reads_halo(const NodeInfo& n) { return n.window.pad_h > 0 || n.window.pad_w > 0; }

// Puts the phases of a stride that the taps along one axis lie in among the sorted `phases`.
void add_phases(int kernel, int dilation, int pad, int stride, std::vector<int32_t>* phases) {
  const int period = stride / std::gcd(stride, dilation);  // of taps, after which the phases repeat
  for (int k = 0; k < std::min(kernel, period); k++) {
    const int at = k * dilation - pad;
    phases->push_back(at - floor_div(at, stride) * stride);
  }
  std::sort(phases->begin(), phases->end());
  phases->erase(std::unique(phases->begin(), phases->end()), phases->end());
}

// Of a map, a resolution and a repacked copy in the plan itself, with what a tree or list adds to each.
constexpr size_t kMapBytes = sizeof(Map) + sizeof(Buffer);
constexpr size_t kGeometryBytes = sizeof(Geometry) + 128;
constexpr size_t kRepackBytes = 512 + kMapBytes;

constexpr int kMostHaloForWords = 2;

}  // namespace

void Planner::plan() {
  infer_sizes();
  find_halos();
  build_geometries();
  widen_halos();
  choose_layouts();
  choose_kernels();
  place_buffers();
  check_memory();
  allocate();
  add_steps();
}

bool Planner::is_direct(const NodeInfo& n) const {
  const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
  return n.window.stride_h == 1 && n.window.stride_w == 1 && in.height == out.height && in.width == out.width;
}

Planner::Reach Planner::reach_of(const NodeInfo& n) const {
  const Window& w = n.window;
  return {floor_div(-w.pad_h, w.stride_h),
          floor_div((w.kernel_h - 1) * w.dilation_h - w.pad_h, w.stride_h),
          floor_div(-w.pad_w, w.stride_w),
          floor_div((w.kernel_w - 1) * w.dilation_w - w.pad_w, w.stride_w)};
}

// All maps of one resolution share one geometry, so that any two of them line up position by position. Its halo is as
// wide as the widest need of the convolutions that compute at that resolution, or read it in place (`widen_halos`).
void Planner::find_halos() {
  for (const NodeInfo& n : program_.nodes) {
    if (!is_conv(n)) continue;
    const Size in = size(n.inputs[0]), out = size(n.outputs[0]);
    const Reach r = reach_of(n);
    // Behind the last row or column of a strided or unpadded convolution's output there may be real pixels; then the halo
    // in front of the next row cannot share their place.
    auto need = [](int low, int high, int in_size, int out_size, int stride) {
      const int before = std::max(0, -low), behind = std::max(0, high);
      return ceil_div(in_size, stride) > out_size ? before + behind : std::max(before, behind);
    };
    int& halo = halo_[{out.height, out.width}];
    halo = std::max({halo, need(r.low_y, r.high_y, in.height, out.height, n.window.stride_h),
                     need(r.low_x, r.high_x, in.width, out.width, n.window.stride_w)});
  }
}

void Planner::build_geometries() {
  for (const Size& size : sizes_) {
    std::unique_ptr<Geometry>& slot = s_.geometries_[{size.height, size.width}];
    if (slot) continue;
    charge(kGeometryBytes);
    slot = std::make_unique<Geometry>();
    slot->batch = s_.options_.batch;
    slot->height = size.height;
    slot->width = size.width;
    lay_out(slot.get());
  }
}

void Planner::lay_out(Geometry* geometry) {
  Geometry& g = *geometry;
  g.halo = halo_[{g.height, g.width}];
  g.row_stride = g.width + g.halo;
  g.image_rows = g.height + g.halo;
  // Behind the last pixel there is only the halo of its own row and image: the margin serves for it.
  g.end = (size_t(g.batch) * size_t(g.image_rows) - size_t(g.halo) - 1) * size_t(g.row_stride) + size_t(g.width);
  if (g.end > kMaxBuffer)
    throw ArgumentError("maps of " + std::to_string(g.height) + "x" + std::to_string(g.width) + " pixels for " +
                        std::to_string(g.batch) + " images are too large; use a smaller image or batch");
  g.margin = round_up(size_t(g.halo) * size_t(g.row_stride) + size_t(g.halo), kTile);
  g.body = round_up(g.end, kTile);
  g.plane = 2 * g.margin + g.body;
}

// Words read any map in place whose halo their taps do not leave: a narrow one costs less than a copy for them.
void Planner::widen_halos() {
  for (const NodeInfo& n : program_.nodes) {
    if (is_direct(n) || !uses_words(n)) continue;
    const Size in = size(n.inputs[0]);
    const int64_t wanted = halo_in_place(n);
    int& halo = halo_[{in.height, in.width}];
    if (wanted <= halo || wanted > kMostHaloForWords) continue;
    halo = int(wanted);
    lay_out(s_.geometries_.at({in.height, in.width}).get());
  }
}

const Geometry* Planner::geometry(const Size& size) const {
  return s_.geometries_.at({size.height, size.width}).get();
}

Map Planner::make_map(Type type, int channels, const Geometry* g, int phases, int first, int last) {
  Map m = make_planes(channels, in_quads(type) ? (channels + 3) / 4 : channels, element_size(type), g, phases, first, last);
  set_halo(&m, type, channels, type == Type::kB1 ? kOutside : uint8_t(0));
  return m;
}

Map Planner::make_planes(int channels, int planes, size_t element, const Geometry* g, int phases, int first, int last) {
  Map m;
  m.geometry = g;
  m.buffer = int(s_.buffers_.size());
  s_.buffers_.emplace_back();
  s_.buffers_.back().first = first;
  s_.buffers_.back().last = last;
  set_planes(&m, planes, element, phases);
  if (size_t(m.planes) * size_t(phases) > kMaxBuffer / m.plane_bytes)
    throw ArgumentError("a map of " + dimensions(channels, g->height, g->width) + " for " +
                        std::to_string(g->batch) + " images is too large");
  return m;
}

void Planner::set_planes(Map* m, int planes, size_t element, int phases) {
  m->planes = planes;
  m->element = element;
  m->plane_bytes = m->geometry->plane * element;
  // An odd number of cache lines: planes that lie a power of two apart would evict one another.
  if (m->plane_bytes % 128 == 0) m->plane_bytes += 64;
  m->buffer_offset = m->geometry->margin * element;
  s_.buffers_[size_t(m->buffer)].bytes = m->plane_bytes * size_t(planes) * size_t(phases);
}

void Planner::set_halo(Map* m, Type type, int channels, uint8_t halo) {
  m->halo = m->last_halo = halo;
  // Channels that pad the last nibble must match nothing: their bit is 0, also outside the image.
  if (type == Type::kB1 && halo == 15 && channels % 4) m->last_halo = uint8_t((1 << channels % 4) - 1);
}

void Planner::choose_layouts() {
  const int end = node_count();
  for (const NodeInfo& n : program_.nodes)
    input_readers_ += int(std::count(n.inputs.begin(), n.inputs.end(), program_.input));
  for (const OutputInfo& o : program_.outputs) input_readers_ += o.value == program_.input;
  std::vector<int> first(program_.values.size(), 0), last(program_.values.size(), 0);
  for (int i = 0; i < end; i++) {
    for (int v : node(i).outputs) first[size_t(v)] = last[size_t(v)] = i + 1;
    for (int v : node(i).inputs) last[size_t(v)] = i + 1;
    // Pixels may be looked up straight into this node's output, before the first step.
    if (node(i).op == Op::kPointwise && node(i).inputs[0] == program_.input)
      for (int v : node(i).outputs) first[size_t(v)] = 0;
  }
  for (const OutputInfo& o : program_.outputs) last[size_t(o.value)] = end + 1;
  charge(program_.values.size() * kMapBytes);
  for (size_t v = 0; v < program_.values.size(); v++)
    s_.maps_.push_back(make_map(program_.values[v].type, program_.values[v].channels,
                                geometry(sizes_[v]), 1, first[v], last[v]));
  // A map's halo byte is what its first direct reader wants; a reader that wants another one reads a copy.
  std::vector<bool> settled(program_.values.size(), false);
  repack_of_.assign(size_t(end), nullptr);
  for (int i = 0; i < end; i++) {
    const NodeInfo& n = node(i);
    if (!is_conv(n)) continue;
    const int v = n.inputs[0];
    const uint8_t halo = wanted_halo(n);
    if (reads_in_place(n)) {
      if (!reads_halo(n)) continue;
      if (!settled[size_t(v)]) {
        set_halo(&map(v), info(v).type, info(v).channels, halo);
        settled[size_t(v)] = true;
        continue;
      }
      if (map(v).halo == halo) continue;
    }
    if (reads_words_in_place(n) && (!reads_halo(n) || !settled[size_t(v)] || map(v).halo == halo)) {
      if (reads_halo(n) && !settled[size_t(v)]) {
        set_halo(&map(v), info(v).type, info(v).channels, halo);
        settled[size_t(v)] = true;
      }
      continue;
    }
    Repack* repack = repack_for(i, halo);
    repack_of_[size_t(i)] = repack;
    if (reads_halo(n)) {
      repack->halo = halo;
      repack->halo_matters = true;
    }
    repack->last = i + 1;
    repack->readers++;
    const Reach r = reach_of(n);
    repack->reach = {std::min(repack->reach.low_y, r.low_y), std::max(repack->reach.high_y, r.high_y),
                     std::min(repack->reach.low_x, r.low_x), std::max(repack->reach.high_x, r.high_x)};
    const Window& w = n.window;
    const size_t before = repack->rows.size() + repack->columns.size();
    add_phases(w.kernel_h, w.dilation_h, w.pad_h, w.stride_h, &repack->rows);
    add_phases(w.kernel_w, w.dilation_w, w.pad_w, w.stride_w, &repack->columns);
    charge((repack->rows.size() + repack->columns.size() - before) * sizeof(int32_t));
  }
  for (Repack& r : repacks_) {
    seat_guests(&r);
    r.map = make_map(r.type, info(r.value).channels, r.geometry, r.slots(), r.first, r.last);
    set_halo(&r.map, r.type, info(r.value).channels, r.halo);
  }
}

int Planner::Repack::slot_of(int y, int x) const {
  const auto phase = [](const std::vector<int32_t>& phases, int at, int stride) {
    return int(std::lower_bound(phases.begin(), phases.end(), at - floor_div(at, stride) * stride) - phases.begin());
  };
  return phase(rows, y, stride_h) * int(columns.size()) + phase(columns, x, stride_w);
}

namespace {

constexpr int kMaxGuestSlots = 64;      // strides beyond are rare, and every phase is compared with every other one
constexpr int kLeastGuestOutputs = 16;  // fewer read the copy too seldom to pay for what it costs to make

}  // namespace

// A dword of a pixel has four bytes, and an image three channels: a fourth of all products would be with nothing. So the free bytes
// of some phases hold channels of another phase, at the same place, where each of its taps has one of theirs beside it. Of 7x7
// taps in steps of 2 there are 40 to read then, of 49; of 4x4 in steps of 4 twelve.
void Planner::seat_guests(Repack* r) {
  const NodeInfo& n = node(r->first - 1);
  const Window& w = n.window;
  const int channels = w.in_channels, slots = r->slots();
  if (r->readers != 1 || n.op != Op::kConvQ8 || w.groups != 1 || channels >= 4) return;
  if (slots > kMaxGuestSlots || w.out_channels < kLeastGuestOutputs) return;
  if (lanes_are_outputs(*s_.kernels_, *r->geometry, w.out_channels, false)) return;  // few pixels, and they are read one by one
  typedef std::map<std::pair<int, int>, int> Taps;  // by their places
  constexpr size_t kTapBytes = sizeof(Taps::value_type) + 4 * sizeof(void*) + 5 * sizeof(int32_t);
  charge(size_t(w.kernel_h) * size_t(w.kernel_w) * kTapBytes + size_t(slots) * 4 * sizeof(Repack::Guest));
  std::vector<Taps> taps(static_cast<size_t>(slots));
  for (int ky = 0; ky < w.kernel_h; ky++)
    for (int kx = 0; kx < w.kernel_w; kx++) {
      const int y = ky * w.dilation_h - w.pad_h, x = kx * w.dilation_w - w.pad_w;
      taps[size_t(r->slot_of(y, x))][{floor_div(y, w.stride_h), floor_div(x, w.stride_w)}] = ky * w.kernel_w + kx;
    }
  const auto beside = [&](int slot, int other) {
    return std::all_of(taps[size_t(slot)].begin(), taps[size_t(slot)].end(),
                       [&](const auto& tap) { return taps[size_t(other)].count(tap.first) > 0; });
  };
  std::vector<int> order, taken(size_t(slots), channels);  // bytes of a slot
  for (int slot = 0; slot < slots; slot++) order.push_back(slot);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return taps[size_t(a)].size() > taps[size_t(b)].size(); });
  std::vector<bool> left_out(size_t(slots), false);
  for (const int slot : order) {
    if (taken[size_t(slot)] > channels) continue;  // a host
    std::vector<Repack::Guest> seats;
    for (size_t i = 0; i < order.size() && int(seats.size()) < channels; i++) {
      const int host = order[i];
      if (host == slot || left_out[size_t(host)] || taken[size_t(host)] == 4 || !beside(slot, host)) continue;
      for (int byte = taken[size_t(host)]; byte < 4 && int(seats.size()) < channels; byte++)
        seats.push_back({host, byte, slot, int(seats.size())});
    }
    if (int(seats.size()) < channels) continue;
    for (const Repack::Guest& seat : seats) taken[size_t(seat.slot)]++;
    r->guests.insert(r->guests.end(), seats.begin(), seats.end());
    left_out[size_t(slot)] = true;
  }
  if (r->guests.empty()) return;
  std::stable_sort(r->guests.begin(), r->guests.end(),
                   [](const Repack::Guest& a, const Repack::Guest& b) { return a.slot < b.slot; });
  for (int slot = 0; slot < slots; slot++) {
    if (left_out[size_t(slot)]) continue;
    r->kept.push_back(slot);
    for (const auto& [place, tap] : taps[size_t(slot)]) {
      r->taps.push_back(tap);
      int32_t weights[4] = {-1, -1, -1, -1};
      for (int c = 0; c < channels; c++) weights[c] = 4 * tap + c;
      for (const Repack::Guest& guest : r->guests) {
        if (guest.slot != slot) continue;
        const Taps& theirs = taps[size_t(guest.from)];
        if (const auto found = theirs.find(place); found != theirs.end()) weights[guest.byte] = 4 * found->second + guest.channel;
      }
      r->weights.insert(r->weights.end(), weights, weights + 4);
    }
  }
}

// What readers look at outside a value's image. Repacked copies are made of pixels alone, and a convolution without padding reads no others;
// what it makes of them beside the image is written over.
void Planner::find_seen() {
  seen_.assign(program_.values.size(), Seen::kPixels);
  for (int i = 0; i < node_count(); i++) {
    const NodeInfo& n = node(i);
    if (is_conv(n) && (repack_of_[size_t(i)] || !reads_halo(n))) continue;
    for (int v : n.inputs)  // words know what is before and behind the body
      seen_[size_t(v)] = std::max(seen_[size_t(v)], takes_words(i) ? Seen::kBody : Seen::kMargins);
  }
}

// A map of bits that convolutions by words alone write and read lies as they want it: nobody spreads it, and whole words take half of the
// memory.
void Planner::find_word_maps() {
  std::vector<char> read(program_.values.size(), 0), others(program_.values.size(), 0);
  for (const OutputInfo& o : program_.outputs) others[size_t(o.value)] = 1;
  for (int i = 0; i < node_count(); i++) {
    const bool words = takes_words(i) && !repack_of_[size_t(i)];
    for (size_t k = 0; k < node(i).inputs.size(); k++) (words && k == 0 ? read : others)[size_t(node(i).inputs[k])] = 1;
  }
  for (int i = 0; i < node_count(); i++) {
    const NodeInfo& n = node(i);
    const int v = n.outputs[0];
    if (!read[size_t(v)] || others[size_t(v)] || !takes_words(i) || !has_cuts(n)) continue;
    word_maps_.insert(v);
    set_planes(&map(v), ceil_div(n.window.out_channels, 64), sizeof(uint64_t), 1);
  }
}

// Convolutions by words and by matrix tiles, and what they need beside their maps while they run.
void Planner::choose_kernels() {
  find_seen();
  find_word_maps();
  for (int i = 0; i < node_count(); i++) {
    const NodeInfo& n = node(i);
    const Map& in = is_conv(n) ? input_of(i) : map(n.inputs[0]);
    size_t weights = 0, room = 0;  // of a thread
    const int blocks = ceil_div(n.window.out_channels, kTileChannels), taps = n.window.kernel_h * n.window.kernel_w;
    const Repack* repack = repack_of_[size_t(i)];
    const int slots = repack ? repack->slots() : 1;
    if (takes_words(i)) {
      const Words& words = words_[i] = lay_out_words(i);
      const int steps = taps * words.slot_words;
      const Size out = size(n.outputs[0]);
      const size_t pixels = size_t(s_.options_.batch) * size_t(out.height) * size_t(out.width);
      weights = round_up(size_t(n.window.out_channels), kBinaryChannels) * size_t(steps) * sizeof(uint64_t) +
                pixels * kWordsPixelBytes;
      room = size_t(words_tile(n, steps)) * size_t(steps) * sizeof(uint64_t);
      if (words.room) room += words.plane * sizeof(uint64_t) * size_t(words.slot_words) * size_t(slots);
    } else if (uses_tiles(n)) {
      const int chunks = ceil_div(in.planes, kTilePlanes), planes = chunks * ceil_div(in.planes, chunks);
      if (size_t(planes) * size_t(slots) > kMaxBuffer / (4 * (in.geometry->plane + 64))) continue;  // look-ups do without
      spread_[i] = make_map(Type::kU8, 4 * planes, in.geometry, slots, i + 1, i + 1);
      weights = size_t(blocks) * size_t(taps) * size_t(chunks) * kTileChannels * sizeof(uint64_t);
      room = size_t(taps_a_strip(n, chunks)) * size_t(chunks) * kTileChannels * 64;
    } else if (uses_q8_tiles(n)) {
      const size_t chunks = size_t(ceil_div(taps_read(i) * in.planes, kTilePlanes));
      weights = size_t(blocks) * chunks * kTileChannels * 64;
      room = chunks * kTilePlanes * kMaxTile * 4;
    } else {
      continue;
    }
    charge(kMapBytes);
    room_[i] = {weights, room, int(s_.buffers_.size()), nullptr};
    Buffer buffer;
    buffer.bytes = room * size_t(s_.options_.threads);
    buffer.first = buffer.last = i + 1;
    s_.buffers_.push_back(buffer);
  }
}

Type Planner::read_type(const NodeInfo& n) const {
  const Type type = info(n.inputs[0]).type;
  return n.op == Op::kConvShift && type == Type::kU8 ? Type::kI8 : type;
}

// Maps of 16- and 32-bit integers have no halo of their own: whatever is written beside the image stays there.
bool Planner::reads_in_place(const NodeInfo& n) const {
  if (read_type(n) != info(n.inputs[0]).type) return false;
  return is_direct(n) && !(is_planar(read_type(n)) && reads_halo(n));
}

Planner::Repack* Planner::repack_for(int index, uint8_t halo) {
  const NodeInfo& n = node(index);
  const Size out = size(n.outputs[0]);
  const Type type = read_type(n);
  // Readers of one value, resolution and stride differ in no more than the halo byte: the list is short.
  std::vector<Repack*>& made = repacks_of_[{n.inputs[0], out.height, out.width, n.window.stride_h, n.window.stride_w, int(type)}];
  for (Repack* r : made)
    if (r->halo == halo || !reads_halo(n) || !r->halo_matters) return r;
  charge(kRepackBytes);
  repacks_.emplace_back();
  Repack* repack = &repacks_.back();
  repack->value = n.inputs[0];
  repack->type = type;
  repack->geometry = geometry(out);
  repack->stride_h = n.window.stride_h;
  repack->stride_w = n.window.stride_w;
  repack->halo = halo;
  repack->halo_matters = false;
  repack->first = index + 1;
  made.push_back(repack);
  return repack;
}

// Buffers whose lives overlap must not; the largest are placed first, each at the lowest offset that is free.
void Planner::place_buffers() {
  std::vector<size_t> order(s_.buffers_.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return s_.buffers_[a].bytes > s_.buffers_[b].bytes; });
  std::vector<size_t> placed;  // in the order of their offsets
  size_t total = 0;
  for (size_t i : order) {
    Buffer& b = s_.buffers_[i];
    b.offset = 0;
    for (size_t j : placed) {
      const Buffer& o = s_.buffers_[j];
      if (o.last < b.first || b.last < o.first) continue;
      if (b.offset + b.bytes <= o.offset) break;
      b.offset = std::max(b.offset, round_up(o.offset + o.bytes, 64));
    }
    total = std::max(total, b.offset + b.bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), b.offset,
                                   [&](size_t at, size_t j) { return at < s_.buffers_[j].offset; }),
                  i);
  }
  s_.arena_bytes_ = round_up(total, 64);
}

void Planner::allocate() {
  for (auto& entry : s_.geometries_) {
    Geometry& g = *entry.second;
    g.outside = keep<uint8_t>(g.body);
    std::memset(g.outside, 0xFF, g.body);
    for (int n = 0; n < g.batch; n++)
      for (int y = 0; y < g.height; y++)
        std::memset(g.outside + (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride), 0,
                    size_t(g.width));
  }
  // Zeroed by the system, page by page as they are first touched.
  void* memory = std::calloc(s_.arena_bytes_ + 64, 1);
  if (!memory) throw std::bad_alloc();
  s_.arena_.reset(static_cast<uint8_t*>(memory), std::free);
  uint8_t* arena = s_.arena_.get() + (64 - reinterpret_cast<uintptr_t>(memory) % 64) % 64;
  auto settle = [&](Map* m) {
    const Buffer& b = s_.buffers_[size_t(m->buffer)];
    m->body = arena + b.offset + m->buffer_offset;
  };
  for (Map& m : s_.maps_) settle(&m);
  for (Repack& r : repacks_) settle(&r.map);
  for (auto& entry : spread_) settle(&entry.second);
  for (auto& entry : room_) entry.second.data = arena + s_.buffers_[size_t(entry.second.buffer)].offset;
}

}  // namespace signbit
