// What this program asks the heap for. Under AddressSanitizer every allocation is seen; in other builds operator new's
// alone, which are all but the file's copy and the maps.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define SIGNBIT_SEES_EVERY_ALLOCATION 1
// <sanitizer/allocator_interface.h>, which not every GCC comes with.
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*took)(const volatile void*, size_t), void (*gave)(const volatile void*));
size_t __sanitizer_get_allocated_size(const volatile void* p);
void __sanitizer_set_death_callback(void (*callback)());
}
#else
#define SIGNBIT_SEES_EVERY_ALLOCATION 0
#include <malloc.h>

#include <cstdlib>
#include <new>
#endif

namespace allocations {

struct Tally {
  int64_t live = 0, peak = 0, largest = 0, total = 0;
};
// Of this thread, so that nothing here is shared.
inline thread_local Tally tally;

inline void reset() { tally = {}; }

inline void took(size_t size) {
  tally.live += int64_t(size);
  tally.total += int64_t(size);
  if (tally.live > tally.peak) tally.peak = tally.live;
  if (int64_t(size) > tally.largest) tally.largest = int64_t(size);
}
inline void gave(size_t size) { tally.live -= int64_t(size); }

#if SIGNBIT_SEES_EVERY_ALLOCATION
inline void watch() {
  __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, size_t size) { took(size); },
      [](const volatile void* p) { gave(p ? __sanitizer_get_allocated_size(p) : 0); });
}
#else
inline void watch() {}
#endif

}  // namespace allocations

#if !SIGNBIT_SEES_EVERY_ALLOCATION
void* operator new(size_t size) {
  void* p = std::malloc(size ? size : 1);
  if (!p) throw std::bad_alloc();
  allocations::took(malloc_usable_size(p));
  return p;
}
void operator delete(void* p) noexcept {
  allocations::gave(p ? malloc_usable_size(p) : 0);
  std::free(p);
}
void operator delete(void* p, size_t) noexcept { operator delete(p); }
#endif
