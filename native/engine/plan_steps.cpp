// The plan's steps: epilogues, element-wise nodes, and the tables for pixels.
#include <algorithm>
#include <cstring>

#include "planner.h"

namespace signbit {

namespace {

void clear_margins(const Map& m) {
  const Geometry& g = *m.geometry;
  const size_t margin = g.margin * m.element, end = g.end * m.element;
  const size_t behind = (g.body + g.margin) * m.element - end;
  for (int plane = 0; plane < m.planes; plane++) {
    uint8_t* start = m.body + size_t(plane) * m.plane_bytes;
    const uint8_t halo = plane + 1 == m.planes ? m.last_halo : m.halo;
    std::memset(start - margin, halo, margin);
    std::memset(start + end, halo, behind);
  }
}

}  // namespace

std::string layout(const Map& m, Type type) {
  static const char* const names[] = {"f32", "i32", "i16", "i8", "u8", "i4", "b1"};
  std::string text = names[int(type)] + (" " + std::to_string(m.planes)) + " planes" + (m.element == sizeof(uint64_t) ? " of words" : "") +
                     ", halo " + std::to_string(m.geometry->halo);
  if (!m.geometry->halo) return text;
  if (type == Type::kU8) text += " (" + std::to_string(m.halo) + ")";
  if (type == Type::kB1) text += m.halo == kOutside ? " (outside)" : m.halo ? " (+1)" : " (-1)";
  return text;
}

std::function<void()> Planner::share_out(std::vector<Map> tapped, int64_t items, std::function<void(int64_t, int64_t, int)> work,
                                         const int64_t* ends) {
  Session* session = &s_;
  return [=] {
    for (const Map& m : tapped) clear_margins(m);
    session->pool_.run(items, work, ends);
  };
}

std::vector<Map> Planner::seen_margins(const NodeInfo& n, Seen least) const {
  std::vector<Map> maps;
  for (int v : n.outputs)
    if (in_quads(info(v).type) && geometry(size(v))->margin && seen_[size_t(v)] >= least) maps.push_back(s_.maps_[size_t(v)]);
  return maps;
}

// The margins of maps that filter taps may read are written anew each time: other maps live in the same memory
// between two runs. Kernels that write whole bodies leave only margins.
std::function<void()> Planner::parallel(const NodeInfo& n, int64_t items, std::function<void(int64_t, int64_t, int)> work,
                                        const int64_t* ends, bool whole_bodies) {
  return share_out(seen_margins(n, whole_bodies ? Seen::kMargins : Seen::kBody), items, std::move(work), ends);
}

// With rooms that hold what a thread brought there in the same run. Such kernels write whole bodies: only margins are cleared.
std::function<void()> Planner::in_rooms(int index, int64_t items, std::function<void(const ThreadRoom&, int64_t, int64_t)> work,
                                        const int64_t* ends) {
  Session* session = &s_;
  const Room room = room_.at(index);
  const auto run = share_out(seen_margins(node(index), Seen::kMargins), items, [=](int64_t begin, int64_t end, int thread) {
    Session::Held& held = session->held_[size_t(thread)];
    if (held.step != session->steps_run_) held = {session->steps_run_, {-1, 0, 0}};
    work({held.data, room.of(thread)}, begin, end);
  }, ends);
  return [=] {
    session->steps_run_++;
    run();
  };
}

namespace {

// A step's kind, told apart by the type of its value.
StepCode code_of(StepKind kind, Type type) {
  if (kind == StepKind::kAdd && type == Type::kI4) return StepCode::kAddI4;
  if (kind == StepKind::kAdd && type == Type::kI16) return StepCode::kAddI16;
  if (kind == StepKind::kStore && type == Type::kI4) return StepCode::kStoreI4;
  if (kind == StepKind::kStore && type == Type::kI16) return StepCode::kStoreI16;
  if (kind == StepKind::kStore && type == Type::kI32) return StepCode::kStoreI32;
  return StepCode(kind);
}

}  // namespace

const Epilogue* Planner::make_epilogue(const NodeInfo& n) {
  Epilogue* made = keep<Epilogue>(1);
  Epilogue& e = *made;
  e.count = int32_t(n.steps.size());
  e.channels = n.window.out_channels;
  const Geometry& g = *geometry(size(n.outputs[0]));
  e.batch = g.batch;
  e.image = size_t(g.image_rows) * size_t(g.row_stride);
  e.end = g.end;
  e.outside = g.outside;
  for (size_t i = 0; i < n.steps.size(); i++) {
    const StepInfo& info = n.steps[i];
    EpilogueStep& s = e.steps[i];
    const StepKind kind = StepKind(info.code);
    auto tensor = [&](size_t k) -> const Tensor& { return program_.tensors[size_t(info.params[k])]; };
    switch (kind) {
      case StepKind::kRPReLU:
        s.f2 = tensor(2).f32();
        [[fallthrough]];
      case StepKind::kAffine:
        s.f1 = tensor(1).f32();
        [[fallthrough]];
      case StepKind::kPReLU:
      case StepKind::kSign:
        s.f0 = tensor(0).f32();
        break;
      case StepKind::kQuant4Shift:
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        s.shift = info.attrs[0];
        break;
      case StepKind::kQuant4Ladder:
        s.i0 = tensor(0).i32();
        s.flip = tensor(1).data;
        break;
      case StepKind::kThreshold:
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        s.flip = tensor(2).data;
        break;
      case StepKind::kQuant8:
        std::memcpy(&s.inv_scale, &info.attrs[0], 4);
        s.zero_point = info.attrs[1];
        s.levels = info.attrs[2];
        break;
      case StepKind::kClip:
        std::memcpy(&s.minimum, &info.attrs[0], 4);
        std::memcpy(&s.maximum, &info.attrs[1], 4);
        break;
      case StepKind::kQuant16:
        std::memcpy(&s.inv_scale, &info.attrs[0], 4);
        break;
      case StepKind::kShiftSum:
        s.digits = info.attrs[0];
        s.i0 = tensor(0).i32();
        s.i1 = tensor(1).i32();
        break;
      case StepKind::kShiftPReLU:
        s.digits = info.attrs[0];
        s.i0 = tensor(1).i32();
        s.i1 = tensor(2).i32();
        s.i2 = tensor(0).i32();
        s.i3 = tensor(3).i32();
        break;
      case StepKind::kBias:
        s.i0 = tensor(0).i32();
        break;
      case StepKind::kAdd:
      case StepKind::kMul:
      case StepKind::kStore:
      case StepKind::kSigmoid:
        break;
    }
    static_assert(int(StepKind::kBias) == int(StepCode::kBias) && int(StepKind::kBias) < int(StepCode::kAddI4) &&
                      int(StepCode::kStoreI32) < 32 && 5 * kMaxSteps <= 64,
                  "kinds and codes have equal numbers; a chain has five bits a code");
    s.code = code_of(kind, info.value == kNone ? Type::kF32 : program_.values[size_t(info.value)].type);
    e.chain |= uint64_t(s.code) << 5 * i;
    if (info.value == kNone) continue;
    const Map& m = map(info.value);
    s.data = m.body;
    s.plane = m.plane_bytes;
    if (kind == StepKind::kAdd || kind == StepKind::kMul) {
      if (m.planes == 1) s.plane = 0;
      if (m.geometry != &g) s.image_step = size_t(m.geometry->image_rows) * size_t(m.geometry->row_stride);
    }
    s.halo = m.halo;
    s.last_halo = m.last_halo;
  }
  make_words(&e, greatest_sum(n));
  return made;
}

namespace {

// The digits of a channel that count, the greatest shift first.
struct Digits {
  int count = 0;
  int shift[4], sign[4];

  Digits(const EpilogueStep& s, int channel) {
    for (int d = 0; d < s.digits; d++) {
      const size_t at = size_t(channel) * size_t(s.digits) + size_t(d);
      if (!s.i1[at]) continue;
      int place = count++;
      for (; place && shift[place - 1] < s.i0[at]; place--) {
        shift[place] = shift[place - 1];
        sign[place] = sign[place - 1];
      }
      shift[place] = s.i0[at];
      sign[place] = s.i1[at];
    }
  }

  static int64_t shifted(int64_t v, int by) { return by >= 0 ? v * (int64_t(1) << by) : v >> -by; }
  int64_t of(int64_t v) const {
    int64_t sum = 0;
    for (int d = 0; d < count; d++) sum += sign[d] * shifted(v, shift[d]);
    return sum;
  }
  // The most that the terms of a number up to `number` add up to, whatever their signs.
  int64_t greatest(int64_t number) const {
    int64_t sum = 0;
    for (int d = 0; d < count; d++) sum += shifted(number, shift[d]) + (shift[d] < 0);
    return sum;
  }
  // Whether a greater number's sum is never on the other side of a smaller one's: all terms go one way, or the first one by as
  // much as all others can go the other way.
  bool is_monotone() const {
    int64_t others = 0;
    bool one_way = true;
    for (int d = 1; d < count; d++) {
      others += shifted(1, std::max(shift[d], 0));
      one_way = one_way && sign[d] == sign[0];
    }
    return one_way || (shift[0] >= 0 && shifted(1, shift[0]) >= others);
  }
};

// For numbers from `least` to `most`, 16-bit ones, `least` below 0; false where 16 bits do not do.
bool find_words(const Digits& digits, int64_t least, int64_t most, ShiftWords* w) {
  constexpr int64_t kLow = -32768, kHigh = 32767;
  w->count = int16_t(digits.count);
  for (int d = 0; d < digits.count; d++) {
    w->left[d] = int16_t(std::max(digits.shift[d], 0));
    w->right[d] = int16_t(std::min(std::max(-digits.shift[d], 0), 15));
    w->invert[d] = int16_t(digits.sign[d] < 0 ? -1 : 0);
    w->start = int16_t(w->start + (digits.sign[d] < 0));
  }
  w->low = int16_t(kLow);
  w->high = int16_t(kHigh);
  if (digits.greatest(std::max(-least, most)) <= kHigh) return true;
  if (!digits.is_monotone()) return false;
  const auto fits = [&](int64_t v) { return digits.of(v) >= kLow && digits.of(v) <= kHigh; };
  const int64_t inner = std::min<int64_t>(most, 0);  // nearest to 0
  if (!fits(inner)) return false;
  if (fits(least) && fits(most)) return true;
  // The farthest number towards `end` whose sum fits.
  const auto farthest = [&](int64_t end) {
    int64_t in = inner, out = end;
    if (fits(end)) return end;
    while (std::abs(out - in) > 1) {
      const int64_t middle = (in + out) / 2;
      (fits(middle) ? in : out) = middle;
    }
    return in;
  };
  const bool falls = digits.sign[0] < 0;
  w->clamps = 1;
  w->low = int16_t(farthest(least));
  w->high = int16_t(farthest(most));
  w->below = int16_t(falls ? kHigh : kLow);
  w->above = int16_t(falls ? kLow : kHigh);
  return true;
}

bool fits_short(int32_t x) { return x >= -32768 && x <= 32767; }

}  // namespace

bool Planner::find_all_words(const EpilogueStep& s, int channels, int64_t least, int64_t most, const ShiftWords** words) {
  ShiftWords* made = keep<ShiftWords>(size_t(channels));
  for (int c = 0; c < channels; c++)
    if (!find_words(Digits(s, c), least, most, &made[c])) return false;
  *words = made;
  return true;
}

// Which integer steps need 64 bits, and for which 16 do. `greatest`: what the number before a step is at most, on either side of 0.
void Planner::make_words(Epilogue* e, int64_t greatest) {
  bool is_short = greatest <= 32767;
  for (int i = 0; i < e->count; i++) {
    EpilogueStep& s = e->steps[i];
    bool narrow = is_short;
    switch (s.code) {
      case StepCode::kShiftSum:
      case StepCode::kShiftPReLU: {
        const bool sum = s.code == StepCode::kShiftSum;
        const int64_t of = sum ? greatest : 32768;
        narrow = narrow && find_all_words(s, e->channels, std::max<int64_t>(-of, -32768), sum ? std::min<int64_t>(of, 32767) : -1, &s.words);
        for (int c = 0; c < e->channels; c++) {
          if (Digits(s, c).greatest(of) > INT32_MAX) s.wide = 1;
          if (!sum) narrow = narrow && fits_short(s.i2[c]) && fits_short(s.i3[c]);
        }
        greatest = 32768;
        is_short = true;
        break;
      }
      case StepCode::kAddI16:
        greatest = 32768;
        is_short = true;
        break;
      case StepCode::kBias: {
        int64_t most = 0;
        for (int c = 0; c < e->channels; c++) most = std::max(most, std::abs(int64_t(s.i0[c])));
        greatest = std::min(greatest + most, kWrapped);  // sums beyond begin again at the other end
        is_short = greatest <= 32767;
        narrow = false;
        break;
      }
      case StepCode::kThreshold:
      case StepCode::kStoreI16:
      case StepCode::kStoreI32:
        break;
      default:
        greatest = kWrapped;
        is_short = narrow = false;
    }
    if (!narrow) e->narrow = i + 1;
  }
  if (e->narrow || e->count < 3 || e->steps[0].code != StepCode::kShiftSum || e->steps[1].code != StepCode::kAddI16) return;
  for (int i = 2; i < e->count; i++) {
    const StepCode code = e->steps[i].code;
    int32_t* place = code == StepCode::kShiftPReLU && i == 2 ? &e->activates
                     : code == StepCode::kThreshold          ? &e->compares
                     : code == StepCode::kStoreI16           ? &e->stores
                                                             : nullptr;
    if (!place || *place) return;
    *place = i;
  }
  e->residual = 1;
}

PlanStep& Planner::new_step(const NodeInfo& n, const char* op, const char* kernel) {
  charge(kStepBytes + n.path.size() + n.outputs.size() * sizeof(Map));
  s_.steps_.emplace_back();
  PlanStep& step = s_.steps_.back();
  step.name = n.path;
  step.op = op;
  step.kernel = kernel;
  const int v = n.outputs[0];
  step.shape = dimensions(info(v).channels, size(v).height, size(v).width);
  step.layout = layout(map(v), info(v).type);
  for (int id : n.outputs)
    if (info(id).type == Type::kF32) step.real.push_back(id);
  for (const std::vector<int>* list : {&n.inputs, &n.outputs})
    for (int id : *list) {
      const Map& m = map(id);
      step.bytes += m.geometry->body * m.element * size_t(m.planes);
    }
  return step;
}

void Planner::add_steps() {
  s_.steps_.reserve(size_t(node_count()) + repacks_.size());
  size_t next_repack = 0;  // they stand in the order of their first readers
  for (int i = 0; i < node_count(); i++) {
    for (; next_repack < repacks_.size() && repacks_[next_repack].first == i + 1; next_repack++)
      add_repack_step(repacks_[next_repack]);
    switch (node(i).op) {
      case Op::kConvB1:
        add_binary_conv(i);
        break;
      case Op::kConvQ8:
        add_q8_conv(i);
        break;
      case Op::kConvShift:
        add_shift_conv(i);
        break;
      case Op::kMaxPool:
      case Op::kAvgPool:
      case Op::kGlobalAvgPool:
      case Op::kGlobalSum:
      case Op::kAdaptivePool:
        add_pool(i);
        break;
      case Op::kPointwise:
        add_pointwise(i);
        break;
      case Op::kChannels:
        add_channels(i);
        break;
      case Op::kResize:
        add_resize(i);
        break;
      case Op::kPixelShuffle:
        add_pixel_shuffle(i);
        break;
    }
  }
  add_pixel_tables();
}

void Planner::add_pointwise(int index) {
  const NodeInfo& n = node(index);
  const Map& in = map(n.inputs[0]);
  const Epilogue* e = make_epilogue(n);
  const uint8_t* src = in.body;
  const size_t plane = in.plane_bytes, body = in.geometry->body;
  const Type type = info(n.inputs[0]).type;
  const bool bits = type == Type::kB1, integer = type == Type::kI16;
  const auto kernel = bits ? s_.kernels_->pointwise_b1 : integer ? s_.kernels_->pointwise_i16 : s_.kernels_->pointwise;
  PlanStep& step = new_step(n, "pointwise", bits ? "pointwise_b1" : integer ? "pointwise_i16" : "pointwise");
  step.run = parallel(n, int64_t((e->channels + 3) / 4) * int64_t(body / kTile),
                      [=](int64_t begin, int64_t end, int) { kernel(src, plane, body, *e, begin, end); });
  const StepKind first = StepKind(n.steps[0].code);
  if (n.steps.size() > 1 || n.inputs[0] != program_.input || input_readers_ > 1) return;
  // Nothing else reads the image.
  if (first == StepKind::kQuant8) {  // it need not become a map of real values first
    const auto import = s_.kernels_->import_quads;
    const Geometry& g = *in.geometry;
    Session* session = &s_;
    s_.imports_itself_ = true;
    step.import_kernel = "import_quads";
    step.run = [=, &g, from_map = step.run, from_caller = parallel(n, int64_t((e->channels + 3) / 4) * g.batch * g.image_rows,
                [=, &g](int64_t begin, int64_t end, int) { import(session->input_, g, *e, begin, end); })] {
      session->input_ ? from_caller() : from_map();
    };
  }
  if (program_.normalised && (first == StepKind::kQuant8 || first == StepKind::kQuant16)) {
    step.skip_for_pixels = true;
    s_.quantised_input_ = n.outputs[0];
  }
}

// What each pixel value becomes: normalised, and where the first layer reads integers, quantised too.
void Planner::add_pixel_tables() {
  if (!program_.normalised) return;
  const int channels = info(program_.input).channels;
  const float* mean = program_.tensors[size_t(program_.mean)].f32();
  const float* std = program_.tensors[size_t(program_.std)].f32();
  s_.real_table_.resize(size_t(channels) * 256);
  for (int c = 0; c < channels; c++)
    for (int v = 0; v < 256; v++)
      s_.real_table_[size_t(c * 256 + v)] = (float(v) / 255.0f - mean[c]) / std[c];
  if (s_.quantised_input_ == kNone) return;
  const StepInfo* quant = nullptr;
  for (const NodeInfo& n : program_.nodes)
    if (n.outputs[0] == s_.quantised_input_) quant = &n.steps[0];
  float inv_scale;
  std::memcpy(&inv_scale, &quant->attrs[0], 4);
  const bool is_short = StepKind(quant->code) == StepKind::kQuant16;
  const float zero = is_short ? 0.0f : float(quant->attrs[1]), most = is_short ? 0.0f : float(quant->attrs[2]);
  s_.pixel_table_.resize(s_.real_table_.size());
  for (int c = 0; c < channels; c++)
    for (int v = 0; v < 256; v++) {
      // quant8 and quant16 of docs/numerics.md, as the kernels compute them
      float x = s_.real_table_[size_t(c * 256 + v)] * inv_scale;
      if (is_short) {
        x = x == x ? std::clamp(x, -40000.0f, 40000.0f) : 0.0f;
        x = std::clamp((x + 12582912.0f) - 12582912.0f, -32768.0f, 32767.0f);
        s_.pixel_table_[size_t(c * 256 + v)] = uint32_t(int32_t(x));
        continue;
      }
      x = x == x ? std::clamp(x, -1000.0f, 1000.0f) : 0.0f;
      x = std::clamp((x + 12582912.0f) - 12582912.0f + zero, 0.0f, most);
      s_.pixel_table_[size_t(c * 256 + v)] = uint32_t(x) << (8 * (c % 4));
    }
}

}  // namespace signbit
