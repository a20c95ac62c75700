#include "cache.h"

#include <unistd.h>

#include <cstdio>

namespace signbit {

namespace {

// Of one core's share of the third level: sysconf adds up those of a whole socket on some CPUs.
size_t third_level_of_linux() {
  const char* folder = "/sys/devices/system/cpu/cpu0/cache/index3/";
  char path[128];
  auto number = [&](const char* name) {
    unsigned long value = 0;
    std::snprintf(path, sizeof path, "%s%s", folder, name);
    if (std::FILE* file = std::fopen(path, "r")) {
      if (std::fscanf(file, "%lu", &value) != 1) value = 0;
      std::fclose(file);
    }
    return size_t(value);
  };
  return number("level") == 3 ? number("size") << 10 : 0;  // "32768K"
}

}  // namespace

size_t cache_bytes(int level) {
  if (level == 3)
    if (const size_t bytes = third_level_of_linux()) return bytes;
  long bytes = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  bytes = sysconf(level == 1 ? _SC_LEVEL1_DCACHE_SIZE : level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#endif
  if (bytes > 0) return size_t(bytes);
  return level == 1 ? size_t(32) << 10 : level == 2 ? size_t(512) << 10 : 0;
}

}  // namespace signbit
