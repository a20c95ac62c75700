// The kernel table of one instruction set.
#include "../simd/simd.h"
#include "declare.h"

namespace signbit {

#if defined(SIGNBIT_BUILD_AVX512)
#define SIGNBIT_TABLE avx512_kernels
#define SIGNBIT_NAME "avx512"
#elif defined(SIGNBIT_BUILD_AVX2)
#define SIGNBIT_TABLE avx2_kernels
#define SIGNBIT_NAME "avx2"
#elif defined(SIGNBIT_BUILD_NEON_DOT)
#define SIGNBIT_TABLE neon_dot_kernels
#define SIGNBIT_NAME "neon_dot"
#elif defined(SIGNBIT_BUILD_NEON)
#define SIGNBIT_TABLE neon_kernels
#define SIGNBIT_NAME "neon"
#else
#define SIGNBIT_TABLE scalar_kernels
#define SIGNBIT_NAME "scalar"
#endif

const KernelTable* SIGNBIT_TABLE() {
  using namespace SIGNBIT_NS;
  static const KernelTable table = {
      SIGNBIT_NAME,
      binary_conv_vector(),
      q8_quad_bytes(),
      q8_pack(),
      binary_conv,
      q8_conv,
      pack_q8,
      binary_conv_integer,
      conv_shift,
      conv_signs,
      binary_outputs(),
      q8_outputs(),
      shift_outputs(),
      shift_index_bits(),
      binary_outputs_conv,
      binary_outputs_conv_integer,
      q8_outputs_conv,
      conv_shift_outputs,
      pack_q8_outputs,
      import_quads,
      pointwise,
      pointwise_b1,
      pointwise_i16,
      max_pool_f32,
      max_pool_b1,
      max_pool_i16,
      avg_pool_f32,
      avg_pool_i16,
      adaptive_pool_f32,
      global_pool_f32,
      global_pool_b1,
      global_sum_i16,
      channels_f32,
      channels_b1,
      channels_i16,
      nearest_f32,
      nearest_b1,
      bilinear_f32,
      pixel_shuffle_f32,
      pixel_shuffle_b1,
      peak_look_ups,
      peak_dots,
      peak_look_up_macs(),
      peak_dot_macs(),
      peak_copy,
      nullptr,
      nullptr,
      nullptr,
      nullptr,
      0,
      nullptr,
      nullptr,
      nullptr,
      0,
  };
  return &table;
}

}  // namespace signbit
