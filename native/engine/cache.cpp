#include "cache.h"

#include <unistd.h>

namespace signbit {

size_t cache_bytes(int level) {
  long bytes = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  bytes = sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#endif
  if (bytes > 0) return size_t(bytes);
  return level == 1 ? size_t(32) << 10 : level == 2 ? size_t(512) << 10 : 0;
}

}  // namespace signbit
