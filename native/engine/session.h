// A program opened for one input shape: shapes inferred, memory planned, weights packed, kernels chosen.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../kernels/kernels.h"
#include "program.h"
#include "threads.h"

namespace signbit {

enum class InputKind { kU8Nhwc, kF32Nchw };

struct SessionOptions {
  int batch, height, width, threads;
  std::string isa;
  uint64_t memory_limit = 0;  // bytes, 0 for none
};

// Memory that lives from one step of the plan to another.
struct Buffer {
  size_t bytes = 0;
  int first = 0, last = 0;  // indices of steps
  size_t offset = 0;        // in the arena, once planned
};

// A map: planes of one resolution.
struct Map {
  const Geometry* geometry = nullptr;
  int buffer = -1;
  int planes = 0;
  size_t element = 1;      // bytes a position of a plane
  size_t plane_bytes = 0;
  size_t buffer_offset = 0; // of plane 0 within the buffer
  uint8_t halo = 0, last_halo = 0;
  uint8_t* body = nullptr;  // first position behind the margin of plane 0, once planned
};

struct PlanStep {
  std::string name, op, kernel;
  std::string shape, layout;  // of the first map written
  std::vector<int> real;      // f32 values written
  size_t bytes = 0;       // maps and weights read and written
  int64_t macs_b1 = 0, macs_q8 = 0;
  bool skip_for_pixels = false;
  const char* import_kernel = nullptr;  // of a step that reads the caller's real numbers, where it does
  std::function<void()> run;
  double ms = 0;
};

class Session {
 public:
  Session(std::shared_ptr<const Program> program, const SessionOptions& options);
  // The same, with the next best kernels where a memory limit leaves no room for the best ones.
  static std::unique_ptr<Session> open(std::shared_ptr<const Program> program, const SessionOptions& options);

  void run(const void* input, InputKind kind, float* const* outputs);

  int output_count() const { return int(program_->outputs.size()); }
  std::vector<int64_t> output_shape(int index) const;
  Type output_type(int index) const { return program_->values[size_t(program_->outputs[size_t(index)].value)].type; }
  const char* isa() const { return kernels_->isa; }
  size_t arena_bytes() const { return arena_bytes_; }
  size_t weight_bytes() const { return weight_bytes_; }
  bool accepts_pixels() const { return program_->normalised; }
  // While on, `run` throws ArgumentError at the first layer that reads or gives NaN or infinity. Runs look at this and at
  // profiling when they begin: either may be set from any thread at any time.
  void set_checking(bool on) { checking_ = on; }
  void set_profiling(bool on) { profiling_ = on; }
  const std::string& profile();

 private:
  friend class Planner;

  template <typename Work>
  void for_planes(const Geometry& geometry, int channels, Work work);
  void import_f32(const float* input);
  void import_pixels(const uint8_t* input);
  void export_output(int index, float* dst);
  void check_finite(int value, const std::string& what) const;
  void check_pixels(const uint8_t* input, const std::string& what) const;
  std::string input_reader() const;

  std::shared_ptr<const Program> program_;
  SessionOptions options_;
  const KernelTable* kernels_;
  ThreadPool pool_;
  // Whose data lies in each thread's room, and in which step's run it came there.
  struct alignas(64) Held {
    int64_t step = 0, data[3] = {};
  };
  std::vector<Held> held_;
  int64_t steps_run_ = 0;  // of those with rooms
  std::map<std::pair<int, int>, std::unique_ptr<Geometry>> geometries_;
  std::vector<Map> maps_;  // one a value
  std::vector<Buffer> buffers_;
  std::vector<PlanStep> steps_;
  std::deque<std::vector<uint8_t>> storage_;  // packed weights, tables, masks
  std::shared_ptr<uint8_t> arena_;
  size_t arena_bytes_ = 0, weight_bytes_ = 0;
  int quantised_input_ = kNone;        // u8 or i16 value that pixels are looked up into directly
  bool imports_itself_ = false;  // the step with an import_kernel stands for the import
  const float* input_ = nullptr;  // the caller's, in a run where it does
  std::vector<uint32_t> pixel_table_;  // [channel][256]: the quantised pixel, of u8 shifted to its lane
  std::vector<float> real_table_;      // [channel][256]: the normalised pixel
  std::atomic<bool> profiling_{false}, checking_{false};
  double input_ms_ = 0, output_ms_ = 0;
  std::string profile_;
};

}  // namespace signbit
