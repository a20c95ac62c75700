// Convolution by plain loops, and its weights as a file has them.
#pragma once

#include <cstdint>
#include <vector>

namespace naive {

struct Conv {
  int channels, out, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
  int outside;  // the value of a tap outside the image

  int group() const { return channels / groups; }
  int taps() const { return kernel_h * kernel_w; }
  size_t weights() const { return size_t(out) * size_t(group() * taps()); }  // [out][group][kernel_h][kernel_w]
  int out_height(int height) const { return (height + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) / stride_h + 1; }
  int out_width(int width) const { return (width + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }

  std::vector<int32_t> attrs(int last) const {
    return {channels, out,   kernel_h,   kernel_w,   stride_h, stride_w,
            pad_h,    pad_w, dilation_h, dilation_w, groups,   last};
  }

  // x: [batch][channels][height][width]; returns [batch][out][out_height][out_width].
  std::vector<int> run(const std::vector<int>& x, const std::vector<int>& weight, int batch, int height,
                       int width) const {
    const size_t oh = size_t(out_height(height)), ow = size_t(out_width(width));
    const size_t padded_width = size_t(width + 2 * pad_w), padded_plane = padded_width * size_t(height + 2 * pad_h);
    std::vector<int> padded(size_t(channels) * padded_plane), y(size_t(batch) * size_t(out) * oh * ow, 0);
    const int* from = x.data();
    for (int n = 0; n < batch; n++) {
      padded.assign(padded.size(), outside);
      for (int c = 0; c < channels; c++)
        for (int row = 0; row < height; row++)
          for (int column = 0; column < width; column++)
            padded[size_t(c) * padded_plane + size_t(row + pad_h) * padded_width + size_t(column + pad_w)] = *from++;
      for (int o = 0; o < out; o++)
        for (int i = 0; i < group(); i++)
          for (int ky = 0; ky < kernel_h; ky++)
            for (int kx = 0; kx < kernel_w; kx++) {
              const int w = weight[size_t(o * group() + i) * size_t(taps()) + size_t(ky * kernel_w + kx)];
              const int* seen = &padded[size_t(o / (out / groups) * group() + i) * padded_plane +
                                        size_t(ky * dilation_h) * padded_width + size_t(kx * dilation_w)];
              for (size_t row = 0; row < oh; row++) {
                const int* __restrict source = seen + row * size_t(stride_h) * padded_width;
                int* __restrict sums = &y[((size_t(n) * size_t(out) + size_t(o)) * oh + row) * ow];
                for (size_t column = 0; column < ow; column++) sums[column] += w * source[column * size_t(stride_w)];
              }
            }
    }
    return y;
  }

  // One bit a weight: docs/format.md.
  std::vector<uint8_t> pack_bits(const std::vector<int>& weight) const {
    const int quads = (group() + 3) / 4;
    std::vector<uint8_t> packed(size_t((out + 1) / 2) * size_t(taps() * quads));
    for (int o = 0; o < out; o++)
      for (int t = 0; t < taps(); t++)
        for (int i = 0; i < quads * 4; i++) {
          const int bit = i >= group() || weight[size_t((o * group() + i) * taps() + t)] > 0;
          packed[size_t((o / 2 * taps() + t) * quads + i / 4)] |= uint8_t(bit << (i % 4 + 4 * (o % 2)));
        }
    return packed;
  }

  std::vector<int8_t> pack_bytes(const std::vector<int>& weight) const {
    const int quads = (group() + 3) / 4;
    std::vector<int8_t> packed(size_t(out) * size_t(taps() * quads * 4));
    for (int o = 0; o < out; o++)
      for (int t = 0; t < taps(); t++)
        for (int i = 0; i < group(); i++)
          packed[size_t((o * taps() + t) * quads * 4 + i)] = int8_t(weight[size_t((o * group() + i) * taps() + t)]);
    return packed;
  }
};

}  // namespace naive
