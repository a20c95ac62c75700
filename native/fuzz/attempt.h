// One file of unknown origin, taken as far as it goes: opened, and where it is accepted, run once on a small image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fuzz {

// How far a file came: the first stage that refused it, or kRan.
enum class Stage { kLength, kHeader, kTensors, kHash, kGraph, kNode, kSession, kRun, kRan };
constexpr int kStages = 9;
const char* name_of(Stage stage);

// Bytes that a session of a strange file may take.
constexpr uint64_t kMemoryLimit = 1 << 20;

struct Attempt {
  Stage stage = Stage::kRan;
  std::string message;      // of the refusal
  bool broken = false;      // the C API gave what it never may: another status, or no message
};

// Told when the reader starts, when it is done, and when a session is open or refused.
struct Observer {
  virtual ~Observer() = default;
  virtual void begin() = 0;
  virtual void end_reading() = 0;
  virtual void end_session() = 0;
};

// `variant` picks the image's size, the kernels, the threads, and whether pixels are passed, so that one file is tried in several ways.
Attempt attempt(const uint8_t* data, size_t size, uint64_t variant, Observer* observer = nullptr);

}  // namespace fuzz
