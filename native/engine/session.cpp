#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "float_mode.h"
#include "planner.h"
#include "select.h"

namespace signbit {

Session::Session(std::shared_ptr<const Program> program, const SessionOptions& options)
    : program_(std::move(program)),
      options_(options),
      kernels_(select_kernels(options.isa)),
      pool_(options.threads),
      held_(size_t(options.threads)) {
  const DefaultFloatMode mode;  // tables of pixels and of resizing are made here
  Planner(this).plan();
}

std::unique_ptr<Session> Session::open(std::shared_ptr<const Program> program, const SessionOptions& options) {
  try {
    return std::make_unique<Session>(program, options);
  } catch (const ArgumentError&) {
    // Words and matrix tiles need more memory than look-ups, which are slower and give the same.
    if (!options.memory_limit || !select_kernels(options.isa)->words_conv) throw;
    SessionOptions smaller = options;
    smaller.isa = avx512_kernels()->isa;
    return std::make_unique<Session>(program, smaller);
  }
}

std::vector<int64_t> Session::output_shape(int index) const {
  const OutputInfo& o = program_->outputs[size_t(index)];
  const Geometry& g = *maps_[size_t(o.value)].geometry;
  const int64_t channels = program_->values[size_t(o.value)].channels;
  if (o.flat) return {g.batch, channels};
  return {g.batch, channels, g.height, g.width};
}

// `work(image, channel, plane)` for each plane that a caller's numbers have; by all threads where that saves time.
template <typename Work>
void Session::for_planes(const Geometry& g, int channels, Work work) {
  constexpr size_t kLeast = 512;  // rows: fewer are copied before another thread is of use
  const size_t planes = size_t(g.batch) * size_t(channels);
  const auto run = [&](int64_t begin, int64_t end, int) {
    for (int64_t plane = begin; plane < end; plane++) work(int(plane / channels), int(plane % channels), size_t(plane));
  };
  if (planes * size_t(g.height) < kLeast)
    run(0, int64_t(planes), 0);
  else
    pool_.run(int64_t(planes), std::ref(run));  // by reference: a run takes no memory
}

void Session::import_f32(const float* input) {
  const Map& m = maps_[size_t(program_->input)];
  const Geometry& g = *m.geometry;
  const int channels = program_->values[size_t(program_->input)].channels;
  for_planes(g, channels, [&](int n, int c, size_t plane) {
    float* to = reinterpret_cast<float*>(m.body + size_t(c) * m.plane_bytes);
    const float* from = input + plane * size_t(g.height) * size_t(g.width);
    for (int y = 0; y < g.height; y++, from += g.width)
      std::memcpy(to + (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride), from, size_t(g.width) * sizeof(float));
  });
}

void Session::import_pixels(const uint8_t* input) {
  const bool quantised = quantised_input_ != kNone;
  const bool is_short = quantised && program_->values[size_t(quantised_input_)].type == Type::kI16;
  const Map& m = maps_[size_t(quantised ? quantised_input_ : program_->input)];
  const Geometry& g = *m.geometry;
  const int channels = program_->values[size_t(program_->input)].channels;
  if (quantised && !is_short) {
    const uint32_t halo = m.halo * 0x01010101u;
    for (int plane = 0; plane < m.planes; plane++) {
      uint32_t* start = reinterpret_cast<uint32_t*>(m.body + size_t(plane) * m.plane_bytes);
      const size_t margin = g.margin;
      for (size_t i = 0; i < margin; i++) start[int64_t(i) - int64_t(margin)] = start[g.body + i] = halo;
      for (size_t i = 0; i < g.body; i++)
        if (g.outside[i]) start[i] = halo;
    }
  }
  for (int n = 0; n < g.batch; n++)
    for (int y = 0; y < g.height; y++) {
      const size_t row = (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride);
      for (int x = 0; x < g.width; x++, input += channels) {
        if (is_short) {
          for (int c = 0; c < channels; c++)
            reinterpret_cast<int16_t*>(m.body + size_t(c) * m.plane_bytes)[row + size_t(x)] =
                int16_t(pixel_table_[size_t(c) * 256 + input[c]]);
        } else if (quantised) {
          for (int plane = 0; plane < m.planes; plane++) {
            uint32_t quad = 0;
            for (int c = 4 * plane; c < channels && c < 4 * plane + 4; c++)
              quad |= pixel_table_[size_t(c) * 256 + input[c]];
            reinterpret_cast<uint32_t*>(m.body + size_t(plane) * m.plane_bytes)[row + size_t(x)] = quad;
          }
        } else {
          for (int c = 0; c < channels; c++)
            reinterpret_cast<float*>(m.body + size_t(c) * m.plane_bytes)[row + size_t(x)] =
                real_table_[size_t(c) * 256 + input[c]];
        }
      }
    }
}

void Session::export_output(int index, float* dst) {
  const int value = program_->outputs[size_t(index)].value;
  const Map& m = maps_[size_t(value)];
  const Geometry& g = *m.geometry;
  for_planes(g, program_->values[size_t(value)].channels, [&](int n, int c, size_t plane) {
    const float* from = reinterpret_cast<const float*>(m.body + size_t(c) * m.plane_bytes);
    float* to = dst + plane * size_t(g.height) * size_t(g.width);
    for (int y = 0; y < g.height; y++, to += g.width)
      std::memcpy(to, from + (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride), size_t(g.width) * sizeof(float));
  });
}

// What a message calls the input: by the first layer that reads it.
std::string Session::input_reader() const {
  for (const NodeInfo& n : program_->nodes)
    if (std::find(n.inputs.begin(), n.inputs.end(), program_->input) != n.inputs.end())
      return "layer \"" + n.path + "\": its input holds ";
  return "the input holds ";
}

namespace {

void check_finite_at(float v, const std::string& what, int image, int channel, int row, int column) {
  if (std::isfinite(v)) return;
  throw ArgumentError(what + (std::isnan(v) ? "NaN" : "infinity") + " at image " + std::to_string(image) + ", channel " +
                      std::to_string(channel) + ", row " + std::to_string(row) + ", column " + std::to_string(column));
}

}  // namespace

// Pixels that become 8-bit numbers at once are never normalised on the way: only the table says what they are.
void Session::check_pixels(const uint8_t* input, const std::string& what) const {
  const Geometry& g = *maps_[size_t(program_->input)].geometry;
  const int channels = program_->values[size_t(program_->input)].channels;
  for (int n = 0; n < g.batch; n++)
    for (int y = 0; y < g.height; y++)
      for (int x = 0; x < g.width; x++)
        for (int c = 0; c < channels; c++) check_finite_at(real_table_[size_t(c) * 256 + *input++], what, n, c, y, x);
}

void Session::check_finite(int value, const std::string& what) const {
  const Map& m = maps_[size_t(value)];
  const Geometry& g = *m.geometry;
  for (int n = 0; n < g.batch; n++)
    for (int c = 0; c < m.planes; c++) {
      const float* plane = reinterpret_cast<const float*>(m.body + size_t(c) * m.plane_bytes);
      for (int y = 0; y < g.height; y++) {
        const float* row = plane + (size_t(n) * size_t(g.image_rows) + size_t(y)) * size_t(g.row_stride);
        for (int x = 0; x < g.width; x++) check_finite_at(row[x], what, n, c, y, x);
      }
    }
}

void Session::run(const void* input, InputKind kind, float* const* outputs) {
  const DefaultFloatMode mode;
  const bool pixels = kind == InputKind::kU8Nhwc, checking = checking_, profiling = profiling_;
  auto now = [] { return std::chrono::steady_clock::now(); };
  auto start = now();
  auto lap = [&] {
    const auto end = now();
    const double ms = std::chrono::duration<double, std::milli>(end - start).count();
    start = end;
    return ms;
  };
  input_ = imports_itself_ && !pixels && !checking ? static_cast<const float*>(input) : nullptr;
  if (pixels)
    import_pixels(static_cast<const uint8_t*>(input));
  else if (!input_)
    import_f32(static_cast<const float*>(input));
  if (checking && pixels && quantised_input_ != kNone)
    check_pixels(static_cast<const uint8_t*>(input), input_reader());
  else if (checking)
    check_finite(program_->input, input_reader());
  if (profiling) input_ms_ = lap();
  for (PlanStep& step : steps_) {
    if (pixels && step.skip_for_pixels) {
      step.ms = 0;
      continue;
    }
    step.run();
    if (checking)
      for (int value : step.real) check_finite(value, "layer \"" + step.name + "\" gives ");
    if (profiling) step.ms = lap();
  }
  for (int i = 0; i < output_count(); i++) export_output(i, outputs[i]);
  if (profiling) output_ms_ = lap();
}

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    char escape[8];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

const std::string& Session::profile() {
  profile_ = "[";
  auto add = [&](const std::string& name, const std::string& op, const std::string& kernel,
                 const std::string& shape, const std::string& layout, double ms, size_t bytes, int64_t macs_b1,
                 int64_t macs_q8) {
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, ", \"ms\": %.6f, \"bytes\": %zu, \"macs_b1\": %lld, \"macs_q8\": %lld}",
                  ms, bytes, static_cast<long long>(macs_b1), static_cast<long long>(macs_q8));
    if (profile_.size() > 1) profile_ += ", ";
    profile_ += "{\"name\": " + quoted(name) + ", \"op\": " + quoted(op) + ", \"kernel\": " + quoted(kernel) +
                ", \"isa\": " + quoted(kernels_->isa) + ", \"shape\": " + quoted(shape) + ", \"layout\": " + quoted(layout) + numbers;
  };
  const int input = quantised_input_ == kNone ? program_->input : quantised_input_;
  const Map& first = maps_[size_t(input)];
  add("input", "input", input_ ? "in_place" : quantised_input_ == kNone ? "import" : "import_or_table", "",
      layout(first, program_->values[size_t(input)].type), input_ms_, 0, 0, 0);
  for (const PlanStep& s : steps_)
    add(s.name, s.op, input_ && s.import_kernel ? s.import_kernel : s.kernel, s.shape, s.layout, s.ms, s.bytes, s.macs_b1, s.macs_q8);
  add("output", "output", "export", "", "", output_ms_, 0, 0, 0);
  profile_ += "]";
  return profile_;
}

}  // namespace signbit
