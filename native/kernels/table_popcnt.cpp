// The kernel table of CPUs that count the bits of vectors (VPOPCNTDQ): that of AVX-512, and what counting does.
#include "../simd/simd.h"
#include "declare.h"

namespace signbit {

const KernelTable* avx512_popcnt_kernels() {
  static const KernelTable table = [] {
    KernelTable t = *avx512_kernels();
    t.isa = "avx512_popcnt";
    t.words_conv = SIGNBIT_NS::words_conv;
    t.words_conv_integer = SIGNBIT_NS::words_conv_integer;
    t.peak_words = SIGNBIT_NS::peak_words;
    t.peak_word_macs = SIGNBIT_NS::peak_word_macs();
    return t;
  }();
  return &table;
}

}  // namespace signbit
