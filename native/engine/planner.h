// Turns a program into a session's plan.
#pragma once

#include <cstring>
#include <set>
#include <string>

#include "session.h"

namespace signbit {

// Arithmetic of layouts, for the planner's sources alone.
inline size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }
inline int ceil_div(int a, int b) { return (a + b - 1) / b; }
inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

constexpr size_t kWordsPixelBytes = 2 * sizeof(int32_t) + 1;  // of WordsConv: pixel, start_at, and place or at
constexpr int64_t kWrapped = int64_t(1) << 31;  // what no 32-bit integer is beyond, on either side of 0
constexpr size_t kMaxBuffer = size_t(1) << 30;  // of one map: offsets between taps are 32-bit
// Of a session without a limit of its own: nothing that is meant to run needs more, and sums below it cannot overflow.
constexpr size_t kMaxMemory = size_t(1) << 36;

// Of a step in the plan itself, beside its layer's name: the structure, its texts and what its function holds.
constexpr size_t kStepBytes = sizeof(PlanStep) + 768;

inline std::string dimensions(int channels, int height, int width) {
  return std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width);
}

// Maps of integers that lie a channel a plane, as those of real values do; and maps of four channels a byte or dword, which filter taps may read.
inline bool is_planar(Type type) { return type == Type::kI16 || type == Type::kI32; }
inline bool in_quads(Type type) { return type == Type::kB1 || type == Type::kU8; }

// What a map looks like in memory, for people: "b1 16 planes, halo 1 (outside)".
std::string layout(const Map& m, Type type);

class Planner {
 public:
  explicit Planner(Session* session) : s_(*session), program_(*session->program_) {}
  void plan();

 private:
  // What readers look at: nothing outside the image; what stands there in the body; margins, too.
  enum class Seen : uint8_t { kPixels, kBody, kMargins };
  struct Size {
    int height = 0, width = 0;
  };
  // Where a convolution's taps lie, in rows and columns of its output's geometry.
  struct Reach {
    int low_y = 0, high_y = 0, low_x = 0, high_x = 0;
  };
  // How a convolution's input lies as words: in each thread's room, a stretch of it, as WordsConv says; with a room of 0 so in memory.
  struct Words {
    int slot_words = 0;
    size_t plane = 0;
    int64_t room = 0, reach[2] = {0, 0};
  };
  // Of a convolution by words: its tiles, and where threads' shares of the items end, nothing where they are as many each.
  struct Shares {
    int64_t tiles;
    std::vector<int64_t> ends;
  };
  // A copy of a map brought to a strided consumer's geometry: one set of planes a phase.
  struct Repack {
    int value;
    Type type;  // of the copy: the value's, or i8 for bytes of a u8 value that lie a channel a plane
    const Geometry* geometry;
    int stride_h, stride_w;
    uint8_t halo;
    bool halo_matters;
    // The phases that readers' taps lie in: each of `rows` with each of `columns`, in this order. Sorted.
    std::vector<int32_t> rows, columns;
    Reach reach;
    int first = 0, last = 0;     // consumers: the first and last node
    int readers = 0;
    Map map;
    int slots() const { return int(rows.size() * columns.size()); }
    int slot_of(int y, int x) const;  // that a tap so far from an output's place lies in
    // Where a dword has room for more channels than there are, and one convolution alone reads them, pixels of some phases are
    // guests in others' dwords, and their own dwords are left out. Empty: there are no guests.
    struct Guest {
      int slot, byte;         // where it stands
      int from, channel;      // the slot whose pixel it is of
    };
    std::vector<Guest> guests;          // by the slot where they stand
    std::vector<int32_t> kept;          // slots that are not left out
    std::vector<int32_t> taps;          // those that are read: a tap of a slot, guests with it
    std::vector<int32_t> weights;       // [taps][4]: where in a channel's weights a byte's is, or -1
  };

  void infer_sizes();
  Size result_size(const NodeInfo& n) const;
  void check_operands(const NodeInfo& n, const Size& out) const;
  void find_halos();
  void build_geometries();  // without their masks
  void lay_out(Geometry* geometry);
  void widen_halos();
  Type read_type(const NodeInfo& n) const;       // as what a convolution wants its input
  bool reads_in_place(const NodeInfo& n) const;  // a convolution, but for what stands in the halo
  Repack* repack_for(int index, uint8_t halo);   // one that the node can read, or a new one
  void choose_layouts();  // maps, repacks, and how long each buffer lives
  void seat_guests(Repack* repack);
  void find_seen();
  void find_word_maps();
  void choose_kernels();  // words and tiles, which need room
  void place_buffers();
  void check_memory();  // before anything that grows with the file or the image is allocated
  size_t table_bytes(const NodeInfo& n) const;
  int scratch_width(const NodeInfo& n) const;     // of a maximum: positions, and bytes a thread
  size_t scratch_bytes(const NodeInfo& n) const;
  void charge(size_t bytes);                      // counts them; throws as the next does
  void require_memory(size_t bytes) const;        // throws ArgumentError where the limit, or the hard one, is lower
  void allocate();
  void add_steps();
  void add_repack_step(const Repack& repack);
  void add_binary_conv(int index);
  bool uses_tiles(const NodeInfo& n) const;
  bool uses_q8_tiles(const NodeInfo& n) const;
  int taps_a_strip(const NodeInfo& n, int chunks) const;  // whose weights are spread together
  void add_tile_conv(int index);
  bool uses_words(const NodeInfo& n) const;
  bool takes_words(int index) const;  // uses words, and there is room for its input as such
  int64_t halo_in_place(const NodeInfo& n) const;
  bool reads_words_in_place(const NodeInfo& n) const;  // strided, and needs no repacked copy for it
  int words_tile(const NodeInfo& n, int steps) const;  // positions
  Words lay_out_words(int index) const;
  void add_words_conv(int index);
  // `ones`: of each channel's weights for each tap. Returns the pixels' positions in the result.
  std::vector<int32_t> make_words_pixels(int index, const std::vector<int16_t>& ones, WordsConv* conv);
  Shares make_words_tiles(const Geometry& g, const std::vector<int32_t>& at, WordsConv* conv);
  Shares make_words_result(int value, const std::vector<int32_t>& at, WordsConv* conv);
  const uint64_t* words_outside(const Map& map, int channels);
  void add_tile_q8_conv(int index);
  void add_q8_conv(int index);
  OutputsConv make_outputs_conv(int index);
  void add_shift_conv(int index);
  void add_shift_outputs(int index);
  void add_signs_conv(int index);
  int64_t greatest_sum(const NodeInfo& n) const;
  bool find_all_words(const EpilogueStep& s, int channels, int64_t least, int64_t most, const ShiftWords** words);
  void make_words(Epilogue* e, int64_t greatest);
  void add_binary_outputs(int index);
  void add_q8_outputs(int index);
  void add_pool(int index);
  void add_max_pool(const NodeInfo& n, Pool pool);
  void add_avg_pool(const NodeInfo& n, Pool pool);
  void add_pointwise(int index);
  void add_channels(int index);
  void add_resize(int index);
  void add_pixel_shuffle(int index);
  void add_pixel_tables();

  const NodeInfo& node(int i) const { return program_.nodes[size_t(i)]; }
  int node_count() const { return int(program_.nodes.size()); }
  const Size& size(int value) const { return sizes_[size_t(value)]; }
  Map& map(int value) { return s_.maps_[size_t(value)]; }
  const ValueInfo& info(int value) const { return program_.values[size_t(value)]; }
  const Geometry* geometry(const Size& size) const;
  bool is_direct(const NodeInfo& n) const;
  Reach reach_of(const NodeInfo& n) const;
  Map make_map(Type type, int channels, const Geometry* geometry, int phases, int first, int last);
  Map make_planes(int channels, int planes, size_t element, const Geometry* geometry, int phases, int first, int last);
  void set_planes(Map* map, int planes, size_t element, int phases);
  void set_halo(Map* map, Type type, int channels, uint8_t halo);
  const Epilogue* make_epilogue(const NodeInfo& n);
  PlanStep& new_step(const NodeInfo& n, const char* op, const char* kernel);
  std::vector<Map> seen_margins(const NodeInfo& n, Seen least) const;  // of maps that it writes: those whose margins must be cleared
  // A step's run: clears margins of the maps that the node writes, then shares the items out to the threads, as ThreadPool::run says.
  // `work` is kept, so that a run takes no memory.
  std::function<void()> share_out(std::vector<Map> tapped, int64_t items, std::function<void(int64_t, int64_t, int)> work,
                                  const int64_t* ends = nullptr);
  std::function<void()> in_rooms(int index, int64_t items, std::function<void(const ThreadRoom&, int64_t, int64_t)> work,
                                 const int64_t* ends = nullptr);
  std::function<void()> parallel(const NodeInfo& n, int64_t items, std::function<void(int64_t, int64_t, int)> work,
                                 const int64_t* ends = nullptr, bool whole_bodies = false);
  // What a convolution reads: its input, or a repacked copy.
  const Map& input_of(int index) const {
    const Repack* repack = repack_of_[size_t(index)];
    return repack ? repack->map : s_.maps_[size_t(node(index).inputs[0])];
  }
  const Repack* with_guests(int index) const;  // what a node reads, where there are guests in it; else null
  int taps_read(int index) const;
  int64_t tap_position(int index, const Geometry& in, int tap, int* slot) const;
  const int32_t* tap_offsets(int index, const Map& in, int planes);
  std::vector<ConvSegment> make_segments(int index, int block_channels, bool one_group,
                                         std::vector<int32_t>* first);
  int64_t band_tiles(int index, int planes, int64_t tile) const;
  const int64_t* lay_out_items(int index, int planes, int block_channels, int64_t tile, int64_t vector, ConvItems* items);
  const int64_t* finish_conv(int index, int64_t tile, int64_t vector, const std::vector<ConvSegment>& segments,
                             const std::vector<int32_t>& first, Conv* conv);
  int64_t macs(const NodeInfo& n) const;
  // What all kernels that work row by row are told.
  void set_rows(const NodeInfo& n, RowWork* work) const;
  int64_t row_items(const RowWork& work) const;
  Axis resize_axis(const ResizeInfo& r, int from, int to);
  bool is_narrow(const NodeInfo& n) const;
  bool has_half_sums(const NodeInfo& n) const;
  std::vector<int64_t> valid_key(const NodeInfo& n) const;
  size_t valid_bytes(const NodeInfo& n) const;
  int valid_rows(const NodeInfo& n, int y) const;
  int valid_columns(const NodeInfo& n, int x) const;
  void make_valid(const NodeInfo& n, BinaryConv* conv);
  bool has_cuts(const NodeInfo& n) const;
  void make_cuts(const NodeInfo& n, BinaryCuts* cuts);
  void make_quant4(const NodeInfo& n, const Epilogue& e, BinaryCuts* cuts);
  // Memory that lives as long as the session, charged before it is allocated.
  template <typename T>
  T* keep(size_t count) {
    return reinterpret_cast<T*>(keep_bytes(count * sizeof(T)));
  }
  uint8_t* keep_bytes(size_t bytes);
  template <typename T>
  const T* keep_copy(const std::vector<T>& from) {
    return static_cast<const T*>(std::memcpy(keep<T>(from.size()), from.data(), from.size() * sizeof(T)));
  }

  Session& s_;
  const Program& program_;
  std::vector<Size> sizes_;
  int input_readers_ = 0;
  size_t charged_ = 0;  // bytes
  std::map<std::pair<int, int>, int> halo_;
  std::deque<Repack> repacks_;
  std::map<std::vector<int>, std::vector<Repack*>> repacks_of_;  // by value, resolution and strides
  std::vector<Repack*> repack_of_;  // of each node, or null where it reads its input directly
  std::map<int, Map> spread_;       // of each node that uses tiles: its input as they read it
  std::map<int, Words> words_;      // of each node that uses words
  std::set<int> word_maps_;         // values that lie as words
  std::vector<Seen> seen_;          // of each value
  struct Room {
    size_t weight_bytes;  // packed for these, and tables of pixels
    size_t bytes;         // a thread's
    int buffer;
    uint8_t* data;
    uint8_t* of(int thread) const { return data + size_t(thread) * bytes; }
  };
  std::map<int, Room> room_;  // of each node that uses words or tiles
  struct Valid {
    const int16_t* base = nullptr;
    const int8_t* odd = nullptr;
    const int32_t* valid32 = nullptr;
  };
  std::map<std::vector<int64_t>, Valid> valid_;
};

}  // namespace signbit
