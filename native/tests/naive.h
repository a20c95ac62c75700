// Binary convolution by plain loops, and its weights as a file has them.
#pragma once

#include <cstdint>
#include <vector>

namespace naive {

struct Conv {
  int channels, out, kernel_h, kernel_w, stride, pad_h, pad_w, dilation, groups;
  int outside;  // the value of a tap outside the image

  int group() const { return channels / groups; }
  int taps() const { return kernel_h * kernel_w; }
  size_t weights() const { return size_t(out * group() * taps()); }  // [out][group][kernel_h][kernel_w]
  int out_size(int size, int kernel, int pad) const { return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1; }
  int out_height(int height) const { return out_size(height, kernel_h, pad_h); }
  int out_width(int width) const { return out_size(width, kernel_w, pad_w); }

  std::vector<int32_t> attrs(int last) const {
    return {channels, out, kernel_h, kernel_w, stride, stride, pad_h, pad_w, dilation, dilation, groups, last};
  }

  // x: [batch][channels][height][width]; returns [batch][out][out_height][out_width].
  std::vector<float> run(const std::vector<float>& x, const std::vector<int>& weight, int batch, int height,
                         int width) const {
    std::vector<float> y;
    for (int n = 0; n < batch; n++)
      for (int o = 0; o < out; o++)
        for (int oy = 0; oy < out_height(height); oy++)
          for (int ox = 0; ox < out_width(width); ox++) {
            int sum = 0;
            for (int i = 0; i < group(); i++)
              for (int ky = 0; ky < kernel_h; ky++)
                for (int kx = 0; kx < kernel_w; kx++) {
                  const int iy = oy * stride - pad_h + ky * dilation, ix = ox * stride - pad_w + kx * dilation;
                  const int channel = o / (out / groups) * group() + i;
                  const bool inside = iy >= 0 && ix >= 0 && iy < height && ix < width;
                  const int v = inside ? int(x[size_t(((n * channels + channel) * height + iy) * width + ix)]) : outside;
                  sum += v * weight[size_t((o * group() + i) * taps() + ky * kernel_w + kx)];
                }
            y.push_back(float(sum));
          }
    return y;
  }

  // One bit a weight: docs/format.md.
  std::vector<uint8_t> pack_bits(const std::vector<int>& weight) const {
    const int quads = (group() + 3) / 4;
    std::vector<uint8_t> packed(size_t((out + 1) / 2 * taps() * quads));
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
    std::vector<int8_t> packed(size_t(out * taps() * quads * 4));
    for (int o = 0; o < out; o++)
      for (int t = 0; t < taps(); t++)
        for (int i = 0; i < group(); i++)
          packed[size_t((o * taps() + t) * quads * 4 + i)] = int8_t(weight[size_t((o * group() + i) * taps() + t)]);
    return packed;
  }
};

}  // namespace naive
