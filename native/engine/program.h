// The `graph` tensor, read and checked: everything a session needs to know except the input's size.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "container.h"

namespace signbit {

enum class Type : uint32_t { kF32 = 0, kI32 = 1, kI16 = 2, kI8 = 3, kU8 = 4, kI4 = 5, kB1 = 6 };

enum class Op : uint32_t {
  kConvB1 = 1, kConvQ8 = 2, kMaxPool = 3, kAvgPool = 4, kGlobalAvgPool = 5, kPointwise = 6,
  kChannels = 7, kResize = 8, kPixelShuffle = 9, kAdaptivePool = 10, kConvShift = 11, kGlobalSum = 12,
};

struct Tensor {
  uint32_t dtype = 0;  // 0 f32, 1 i32, 3 i8, 4 u8; 4-bit integers of a file are i8 here
  uint32_t count = 0;
  const uint8_t* data = nullptr;

  const float* f32() const { return reinterpret_cast<const float*>(data); }
  const int32_t* i32() const { return reinterpret_cast<const int32_t*>(data); }
};

struct ValueInfo {
  Type type;
  int channels;
};

constexpr int kNone = -1;

struct StepInfo {
  uint32_t code;
  int value;  // or kNone
  std::vector<int32_t> attrs;
  std::vector<int> params;
};

// Window and channels of a convolution or pooling, under the names of the file format.
struct Window {
  int in_channels = 0, out_channels = 0;
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  int dilation_h = 1, dilation_w = 1, groups = 1;
  int pad_value = 0;   // conv_b1
  int zero_point = 0;  // conv_q8, conv_shift
  bool ceil_mode = false, count_include_pad = false;  // pooling
};

// The size is a second input's, or a multiple of the input's, or fixed: what does not hold is 0.
struct ResizeInfo {
  bool bilinear = false, align_corners = false;
  int scale_h = 0, scale_w = 0, out_h = 0, out_w = 0;
};

struct NodeInfo {
  Op op;
  std::string path;
  std::vector<int> inputs, outputs;
  Window window;
  ResizeInfo resize;
  int factor = 1;           // pixel_shuffle
  int out_h = 0, out_w = 0; // adaptive_pool
  bool take_max = false;    // adaptive_pool
  int area = 0;             // global_sum: pixels of a map
  std::vector<int> params;
  std::vector<StepInfo> steps;
};

struct OutputInfo {
  int value;
  bool flat;
};

struct Program {
  Container container;
  std::vector<Tensor> tensors;
  std::unique_ptr<int8_t[]> unpacked;  // of the file's 4-bit integers
  std::vector<ValueInfo> values;
  std::vector<NodeInfo> nodes;
  std::vector<OutputInfo> outputs;
  int input = 0;
  bool normalised = false;
  int mean = kNone, std = kNone;
};

// Throws FormatError naming the node and field.
Program read_program(Container container);

}  // namespace signbit
