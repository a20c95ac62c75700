// Which kernels this CPU gets: test_select [SETS], SETS being what must be found ("avx2,scalar"), where known.
#include "select.h"

#include "check.h"
#include "error.h"
#include "signbit/signbit.h"

using signbit::select_kernels;
using signbit::UnsupportedError;

int main(int argc, char** argv) {
  const std::string found = signbit_instruction_sets();
  if (argc > 1) check::that(found == argv[1], "found \"" + found + "\", expected \"" + argv[1] + "\"");
  const auto tables = signbit::available_kernels();
  check::that(std::string(tables.back()->isa) == "scalar", "plain C++ is always there, and last");
  check::that(select_kernels("") == tables.front(), "the best without a cap");
  for (const auto* table : tables) check::that(select_kernels(table->isa) == table, table->isa);

  check::throws<UnsupportedError>([] { select_kernels("sse9"); }, "\"sse9\" is not known; available: ");
  for (const char* known : {"amx", "avx512_popcnt", "avx512", "avx2", "neon_dot", "neon"})
    if (("," + found + ",").find("," + std::string(known) + ",") == std::string::npos)
      check::throws<UnsupportedError>([&] { select_kernels(known); }, "is not available on this CPU or in this build");

  // Small maps have output channels as lanes, where there are enough of them; large maps never do.
  for (const auto* table : tables)
    for (const bool binary : {false, true}) {
      auto outputs_are_lanes = [&](int side, int outputs) {
        signbit::Geometry g = {};
        g.batch = 1;
        g.height = g.width = side;
        g.end = size_t(side) * size_t(side);
        return signbit::lanes_are_outputs(*table, g, outputs, binary);
      };
      const std::string what = std::string(table->isa) + (binary ? ", binary" : ", 8-bit");
      check::that(outputs_are_lanes(1, 512), what + ": a linear layer");
      check::that(outputs_are_lanes(2, 512), what + ": 2x2 pixels");
      check::that(!outputs_are_lanes(8, 512), what + ": 8x8 pixels");
      check::that(!outputs_are_lanes(56, 512), what + ": a large map");
      check::that(!outputs_are_lanes(3, 4), what + ": few outputs");
    }
  return check::report();
}
