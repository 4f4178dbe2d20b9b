// Kernels that take as long as on other cores: a phone's big and little ones on a machine whose
// cores are equal.
//
// Linked with the library's sources and -Wl,--wrap=_ZN2qe12active_tableEv, which has every session
// ask here for its kernels. A kernel computes, and then its thread goes on waiting, without giving
// its core up, until the time has passed that it takes on the core being played: no scheduler has
// a part in it, and what the memory does meanwhile does not count twice.
#include <sched.h>
#include <time.h>

#include <utility>

#include "dispatch.h"

namespace {

constexpr int kCores = 64;
struct Pace {
  double products = 0;  // multiplications and additions of weights in a nanosecond; 0: unlimited
  double factor = 1;    // how many times as long all else takes
};
Pace paces[kCores];
qe::IsaTable plain, paced;

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1000000000} + time.tv_nsec;
}

const Pace& pace_here() {
  const int core = sched_getcpu();
  return paces[core >= 0 && core < kCores ? core : 0];
}

// Returns when a kernel that began at `begin` is through on the core being played.
void wait_until(int64_t end) {
  while (now() < end) {
  }
}

class Factor {
 public:
  Factor() : factor_(pace_here().factor), begin_(factor_ > 1 ? now() : 0) {}
  ~Factor() {
    if (factor_ <= 1) return;
    wait_until(begin_ + static_cast<int64_t>(factor_ * static_cast<double>(now() - begin_)));
  }

 private:
  double factor_;
  int64_t begin_;
};

template <auto Member>
void linear(const qe::Matrix& w, const qe::QuantizedRows& x, int tile_begin, int tile_end,
            float* out, size_t out_stride) {
  const double pace = pace_here().products;
  const int64_t begin = pace > 0 ? now() : 0;
  (plain.*Member)(w, x, tile_begin, tile_end, out, out_stride);
  if (pace <= 0) return;
  const double products = double(tile_end - tile_begin) * qe::kTileRows * w.cols * x.n;
  wait_until(begin + static_cast<int64_t>(products / pace));
}

// A kernel of the table, found by its place in it.
template <auto Member, typename Function>
struct Wrapped;
template <auto Member, typename Result, typename... Values>
struct Wrapped<Member, Result (*)(Values...)> {
  static Result call(Values... values) {
    const Factor factor;
    return (plain.*Member)(values...);
  }
};
template <auto Member, int Index, typename Function>
struct WrappedOf;
template <auto Member, int Index, typename Result, typename... Values>
struct WrappedOf<Member, Index, Result (*)(Values...)> {
  static Result call(Values... values) {
    const Factor factor;
    return (plain.*Member)[Index](values...);
  }
};

template <auto Member>
void wrap() {
  paced.*Member =
      Wrapped<Member,
              std::remove_reference_t<decltype(std::declval<qe::IsaTable>().*Member)>>::call;
}

template <auto Member, int... Index>
void wrap_all(std::integer_sequence<int, Index...>) {
  ((((paced.*Member)[Index] =
         WrappedOf<Member, Index, std::remove_reference_t<decltype((plain.*Member)[0])>>::call)),
   ...);
}

}  // namespace

extern "C" const qe::IsaTable& __real__ZN2qe12active_tableEv();

extern "C" const qe::IsaTable& __wrap__ZN2qe12active_tableEv() {
  using qe::IsaTable;
  using Types = std::make_integer_sequence<int, qe::kKvTypes>;
  static bool ready = false;
  if (ready) return paced;
  ready = true;
  plain = paced = __real__ZN2qe12active_tableEv();
  paced.linear_q4 = linear<&IsaTable::linear_q4>;
  paced.linear_q8 = linear<&IsaTable::linear_q8>;
  wrap<&IsaTable::quantize>();
  wrap<&IsaTable::rms_norm>();
  wrap<&IsaTable::rope>();
  wrap<&IsaTable::silu_mul>();
  wrap<&IsaTable::add>();
  wrap_all<&IsaTable::store_key>(Types());
  wrap_all<&IsaTable::store_value>(Types());
  wrap_all<&IsaTable::scores>(Types());
  wrap_all<&IsaTable::accumulate>(Types());
  wrap<&IsaTable::exp_sum>();
  return paced;
}

// How fast a core is from now on: products of weights a nanosecond, 0 for as many as it can, and
// how many times as long everything else takes.
QE_API void qe_pace_core(int32_t core, double products, double factor) {
  if (core >= 0 && core < kCores) paces[core] = {products, factor};
}
