// The one place that picks kernels.
#pragma once

#include <string>
#include <vector>

#include "../kernels/kernels.h"

namespace signbit {

// Instruction sets that this CPU and this build can run, best first.
std::vector<const KernelTable*> available_kernels();

// The best kernels not above `cap` ("" for no cap). Throws UnsupportedError where the cap names a set that is
// unknown, or that this CPU or build lacks.
const KernelTable* select_kernels(const std::string& cap);

// Whether a convolution without groups is faster with its `outputs` output channels as lanes than with pixels, where its
// result has such a geometry.
bool lanes_are_outputs(const KernelTable& kernels, const Geometry& g, int outputs, bool binary);
// Whether a binary convolution, whose result has such a geometry, is faster by words than by look-ups, or by matrix
// tiles; `bits` where nothing but bits leave it, by one cut a channel.
bool words_pay(const Geometry& g, int taps, int inputs, int outputs, bool bits, bool tiles);
// Whether one of so many channels is faster by matrix tiles than by look-ups.
bool tiles_pay(int inputs, int outputs);
// The same of an 8-bit one of so many steps of four input channels.
bool q8_tiles_pay(int steps, int outputs);
// The same as lanes_are_outputs of one without multiplications, whose outputs sum `taps` each and whose weights have so many digits in all; `bytes`
// where pixels are such, two a 16-bit lane.
bool shift_lanes_are_outputs(const KernelTable& kernels, const Geometry& g, int outputs, int64_t taps, int64_t digits, bool bytes);

}  // namespace signbit
