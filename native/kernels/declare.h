// The functions that one instruction set's sources give to its table.
#pragma once

#include "kernels.h"

namespace signbit {
namespace SIGNBIT_NS {

void binary_conv(const BinaryConv&, const Epilogue&, int64_t begin, int64_t end);
int binary_conv_tile();
void q8_conv(const Q8Conv&, const Epilogue&, int64_t begin, int64_t end);
void pack_q8_quad(const int8_t* weights, uint8_t* packed);
int q8_quad_bytes();
void pointwise(const uint8_t* src, size_t src_plane, size_t body, const Epilogue&, int64_t begin,
               int64_t end);
void max_pool_f32(const Pool&, int64_t begin, int64_t end);
void max_pool_b1(const Pool&, int64_t begin, int64_t end);
void avg_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_f32(const Pool&, int64_t begin, int64_t end);
void global_pool_b1(const Pool&, int64_t begin, int64_t end);

}  // namespace SIGNBIT_NS
}  // namespace signbit
