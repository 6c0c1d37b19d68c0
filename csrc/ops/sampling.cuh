// Code of the samplers, for the CPU and for CUDA.
#pragma once

#include "../common/row_math.h"
#include "sampling.h"

PR_NAMESPACE_BEGIN

struct Words {
  uint32_t x, y, z, w;
};

// Philox4x32-10 (Salmon et al. 2011): the four random words of a counter under a key.
PR_FN Words philox(Words counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(counter.x) * 0xD2511F53u, b = uint64_t(counter.z) * 0xCD9E8D57u;
    counter = {uint32_t(b >> 32) ^ counter.y ^ key0, uint32_t(b), uint32_t(a >> 32) ^ counter.w ^ key1, uint32_t(a)};
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
  return counter;
}

// A uniform number inside (0, 1], from one word (float32) or two (float64).
PR_FN float uniform(uint32_t high, uint32_t, float) { return (float(high >> 8) + 1) * 0x1p-24f; }
PR_FN double uniform(uint32_t high, uint32_t low, double) {
  return (double((uint64_t(high) << 21) | (low >> 11)) + 1) * 0x1p-53;
}

// One point of the unit ball of ‖·‖_p, uniformly: l∞ by coordinates; l2 by a Gaussian direction at radius U^(1/n); l1
// by n + 1 exponentials over their sum, signs apart (Barthe et al. 2005).
struct SampleLpBall {
  template <class Row>
  static PR_FN void run(Row& row, const SampleArgs& a) {
    using C = typename Row::Compute;
    const uint64_t id = uint64_t(static_cast<const int64_t*>(a.ids)[row.index()]);
    const uint32_t id0 = uint32_t(id), id1 = uint32_t(id >> 32);
    const uint32_t key0 = uint32_t(uint64_t(a.seed)), key1 = uint32_t(uint64_t(a.seed) >> 32), step = uint32_t(a.step);
    const auto words = [=](int64_t i) PR_LAMBDA { return philox({uint32_t(i), step, id0, id1}, key0, key1); };
    const double radius = row.scalar(a.radius);
    if (!(radius >= 0)) return write_nan(row, a.out);
    const auto write = [&](C factor) { row.each([factor](C v, C& o) PR_LAMBDA { o = v * factor; }, row.out(a.out)); };
    if (a.p > 1e300) {
      row.load(
          [words](int64_t i) PR_LAMBDA {
            const Words w = words(i);
            return C(2) * uniform(w.x, w.y, C()) - C(1);
          },
          position());
      return write(C(radius));
    }
    const Words last = words(-1);  // the number that belongs to the row, beyond its elements
    const double extra = uniform(last.x, last.y, double());
    if (a.p == 2) {
      row.load(
          [words](int64_t i) PR_LAMBDA {  // Box–Muller
            const Words w = words(i);
            const C length = square_root(C(-2) * logarithm(uniform(w.x, w.y, C())));
            return length * cosine(C(6.283185307179586) * uniform(w.z, w.w, C()));
          },
          position());
      const double norm = norm2(row, [](C v) PR_LAMBDA { return v; });
      return write(norm > 0 ? C(radius * power(extra, 1 / double(row.size())) / norm) : C(0));
    }
    row.load(
        [words](int64_t i) PR_LAMBDA {
          const Words w = words(i);
          const C exponential = -logarithm(uniform(w.x, w.y, C()));
          return w.z & 1u ? exponential : -exponential;
        },
        position());
    const double sum = row.sum([](C v) PR_LAMBDA { return absolute(v); }) - logarithm(extra);
    write(sum > 0 ? C(radius / sum) : C(0));
  }
};

PR_NAMESPACE_END
