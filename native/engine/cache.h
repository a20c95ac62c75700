// Sizes of the data caches of this CPU.
#pragma once

#include <cstddef>

namespace signbit {

// Bytes of the cache of level 1 or 2 of a core, a usual size where the system does not say; of level 3, 0 then.
size_t cache_bytes(int level);

}  // namespace signbit
