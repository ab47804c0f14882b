// Arrays cut out of larger ones or set into larger ones, any number of them in one call, for XLA's CPU backend.
//
// XLA compiles a loop for each slice, pad and array of zeros. The weights of a supernet's branches and what they keep for
// their gradients are hundreds of them, and were a third of its program. Every result is a frame around its argument:
// `frame[i] = x[i - shift]` where there is such an entry, zero elsewhere. Results beyond the arguments are zero. `shifts`
// are those of the arrays one after another, one number per axis; none at all are zeros.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace flynas {
namespace {

constexpr int64_t kPiece = 64 << 10;  // bytes of one task, about

// An array as rows of bytes: in each, `[left, right)` comes from the argument, where the row has one.
struct Frame {
  const char* from;
  char* to;
  std::vector<int64_t> out, in, shift;  // of the axes that tell rows apart
  int64_t rows, row, left, right, in_row, in_start;

  // The row of the argument for row `at` of the result, -1 if there is none.
  int64_t source(int64_t at) const {
    int64_t place = 0, step = 1;
    for (int64_t axis = static_cast<int64_t>(out.size()) - 1; axis >= 0; --axis) {
      const int64_t i = at % out[axis] - shift[axis];
      at /= out[axis];
      if (i < 0 || i >= in[axis]) return -1;
      place += i * step;
      step *= in[axis];
    }
    return place;
  }
};

struct Piece {
  int64_t frame, first, last, begin, end;  // rows `[first, last)`, bytes `[begin, end)` of each
};

struct Frames {
  std::vector<Frame> frames;
  std::vector<Piece> pieces;
};

void fill(const Frames& p, int64_t task) {
  const Piece& piece = p.pieces[task];
  const Frame& f = p.frames[piece.frame];
  for (int64_t at = piece.first; at < piece.last; ++at) {
    char* to = f.to + at * f.row;
    const int64_t source = f.from == nullptr || f.right <= f.left ? -1 : f.source(at);
    if (source < 0) {
      std::memset(to + piece.begin, 0, piece.end - piece.begin);
      continue;
    }
    const int64_t left = std::clamp(f.left, piece.begin, piece.end), right = std::clamp(f.right, left, piece.end);
    std::memset(to + piece.begin, 0, left - piece.begin);
    if (right > left) std::memcpy(to + left, f.from + source * f.in_row + f.in_start + left - f.left, right - left);
    std::memset(to + right, 0, piece.end - right);
  }
}

ffi::Error frame(ffi::ThreadPool& pool, ffi::RemainingArgs& args, ffi::RemainingRets& rets,
                 ffi::Span<const int64_t> shifts) {
  if (args.size() > rets.size()) return wrong("frame: more arguments than results");
  Frames p;
  int64_t total = 0;
  size_t used = 0;
  for (size_t array = 0; array < rets.size(); ++array) {
    auto result = rets.get<ffi::AnyBuffer>(array);
    if (!result.has_value()) return result.error();
    ffi::AnyBuffer to = **result;
    const int64_t size = static_cast<int64_t>(ffi::ByteWidth(to.element_type()));
    Frame f{nullptr, static_cast<char*>(to.untyped_data()), {}, {}, {}, 1, static_cast<int64_t>(to.size_bytes()),
            0, 0, 0, 0};
    if (array < args.size()) {
      auto argument = args.get<ffi::AnyBuffer>(array);
      if (!argument.has_value()) return argument.error();
      const auto in = argument->dimensions(), out = to.dimensions();
      const int64_t rank = static_cast<int64_t>(out.size());
      if (static_cast<int64_t>(in.size()) != rank || argument->element_type() != to.element_type() ||
          (shifts.size() > 0 && used + rank > shifts.size()))
        return wrong("frame: ranks or types do not fit");
      const std::vector<int64_t> none(rank);
      const int64_t* shift = shifts.size() > 0 ? shifts.begin() + used : none.data();
      if (shifts.size() > 0) used += rank;
      // trailing axes that do not change belong to the entries of the last one that does
      int64_t axis = rank - 1, bytes = size;
      while (axis > 0 && in[axis] == out[axis] && shift[axis] == 0) bytes *= out[axis--];
      f.from = static_cast<const char*>(argument->untyped_data());
      const int64_t in_count = rank ? in[axis] : 1, out_count = rank ? out[axis] : 1, by = rank ? shift[axis] : 0;
      f.row = out_count * bytes, f.in_row = in_count * bytes;
      f.left = std::max<int64_t>(0, by) * bytes;
      f.right = std::min(out_count, in_count + by) * bytes;
      f.in_start = std::max<int64_t>(0, -by) * bytes;
      for (int64_t a = 0; a < axis; ++a)
        f.out.push_back(out[a]), f.in.push_back(in[a]), f.shift.push_back(shift[a]), f.rows *= out[a];
    }
    if (f.rows == 0 || f.row == 0) continue;
    const int64_t number = static_cast<int64_t>(p.frames.size());
    const int64_t rows = std::max<int64_t>(1, kPiece / f.row), part = std::min(f.row, kPiece);
    for (int64_t first = 0; first < f.rows; first += rows)
      for (int64_t begin = 0; begin < f.row; begin += part)
        p.pieces.push_back({number, first, std::min(f.rows, first + rows), begin, std::min(f.row, begin + part)});
    total += f.rows * f.row;
    p.frames.push_back(std::move(f));
  }
  if (used != shifts.size()) return wrong("frame: shifts do not fit");
  // in bytes: a pool's thread is worth waking for about a megabyte
  return run(pool, p, fill, static_cast<int64_t>(p.pieces.size()), total);
}

ffi::Error FrameAll(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                    ffi::Span<const int64_t> shifts) {
  return guarded("frame", [&] { return frame(pool, args, rets, shifts); });
}

}  // namespace
}  // namespace flynas

XLA_FFI_DEFINE_HANDLER_SYMBOL(flynas_frame, flynas::FrameAll,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("shifts"));
