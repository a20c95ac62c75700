// The floating-point mode that docs/numerics.md speaks of, whatever the caller's is.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace signbit {

// While one lives, this thread rounds to nearest, keeps subnormal numbers and traps nothing; then it is again as it was.
class DefaultFloatMode {
 public:
  DefaultFloatMode() : callers_(get()) { set(kDefault); }
  ~DefaultFloatMode() { set(callers_); }
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint32_t kDefault = 0x1F80;  // MXCSR: all exceptions masked, nothing else
  static uint32_t get() { return _mm_getcsr(); }
  static void set(uint32_t mode) { _mm_setcsr(mode); }
  uint32_t callers_;
#elif defined(__aarch64__)
  static constexpr uint64_t kDefault = 0;  // FPCR
  static uint64_t get() {
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode) : : "memory");
    return mode;
  }
  static void set(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
  uint64_t callers_;
#else  // left as it is
  static constexpr uint32_t kDefault = 0;
  static uint32_t get() { return 0; }
  static void set(uint32_t) {}
  uint32_t callers_;
#endif
};

}  // namespace signbit
