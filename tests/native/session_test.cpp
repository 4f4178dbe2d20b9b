// The forward pass against itself: however rows are spread over calls, threads and sequences, the
// logits must be the same. Runs with each table of kernels that the processor has; prints
// "N passed, N failed" and exits 1 on a failure.
#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"
#include "status.h"

namespace {

using qe::Matrix;
using qe::Type;

int passed = 0, failed = 0;

void check(bool condition, const std::string& name, double value) {
  condition ? ++passed : ++failed;
  if (!condition) std::printf("FAILED %s: %g\n", name.c_str(), value);
}

// A small model with random weights, every matrix of another type in turn, and every second layer's
// columns in an order of their own.
class RandomModel {
 public:
  RandomModel(const qe::ModelConfig& config, bool tied) : random_(7) {
    model.config = config;
    const int queries = config.heads * config.head_dim, keys = config.kv_heads * config.head_dim;
    model.embedding = matrix(config.vocab, config.hidden, Type::kQ4, 32, false);
    model.head = tied ? model.embedding : matrix(config.vocab, config.hidden, Type::kQ8, 64, false);
    model.final_norm = norm(config.hidden);
    for (int i = 0; i < config.layers; ++i) {
      qe::LayerWeights w;
      w.input_norm = norm(config.hidden);
      w.query = matrix(queries, config.hidden, Type::kQ4, 32, false);
      w.key = matrix(keys, config.hidden, Type::kQ4, 64, true);
      w.value = matrix(keys, config.hidden, Type::kQ8, 32, false);
      w.query_norm = norm(config.head_dim);
      w.key_norm = norm(config.head_dim);
      w.output = matrix(config.hidden, queries, Type::kQ4, 128, false);
      w.post_norm = norm(config.hidden);
      w.gate = matrix(config.intermediate, config.hidden, Type::kQ4, 32, true);
      w.up = matrix(config.intermediate, config.hidden, Type::kF16, 0, false);
      w.down = matrix(config.hidden, config.intermediate, Type::kQ4, 32, true, i % 2 == 1);
      if (i % 2 == 1) {
        w.order[qe::kQkv] = order(config.hidden);
        w.order[qe::kOutput] = order(queries);
        w.order[qe::kGateUp] = order(config.hidden);
        w.order[qe::kDown] = order(config.intermediate);
      }
      model.layers.push_back(w);
    }
    for (int i = 0; i < config.head_dim / 2; ++i) {
      model.inverse_frequency.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(config.head_dim)));
    }
  }

  qe::Model model;

 private:
  const float* norm(int n) {
    auto& values = storage_.emplace_back(n * sizeof(float));
    auto* out = reinterpret_cast<float*>(values.data());
    for (int i = 0; i < n; ++i) out[i] = 0.8f + 0.4f * uniform();
    return out;
  }

  const int32_t* order(int n) {
    auto& values = orders_.emplace_back(n);
    std::iota(values.begin(), values.end(), 0);
    std::shuffle(values.begin(), values.end(), random_);
    return values.data();
  }

  Matrix matrix(int rows, int cols, Type type, int group, bool has_min, bool has_zero = false) {
    Matrix m;
    m.type = type;
    m.rows = rows;
    m.cols = cols;
    m.group = group;
    m.has_min = has_min;
    m.has_zero = has_zero;
    for (int i = 0; i < 16; ++i) m.codebook[i] = static_cast<int8_t>(i - 8);
    if (type == Type::kF16) {
      auto& data = storage_.emplace_back(static_cast<size_t>(rows) * cols * 2);
      for (size_t i = 0; i < data.size(); i += 2) put_half(&data[i], 0.2f * (uniform() - 0.5f));
      m.data = data.data();
      return m;
    }
    auto& data = storage_.emplace_back(m.tile_bytes() * m.tiles());
    const size_t block = qe::block_bytes(type, group, has_min);
    const size_t codes = static_cast<size_t>(group) * (type == Type::kQ4 ? 8 : 16);
    for (size_t at = 0; at < data.size(); at += block) {
      for (size_t i = 0; i < codes; ++i) data[at + i] = static_cast<uint8_t>(random_());
      for (int r = 0; r < qe::kTileRows; ++r) {
        put_half(&data[at + codes + 2 * r], (type == Type::kQ4 ? 0.02f : 0.0015f) * uniform());
        const float minimum = has_zero ? 1.0f : 0.05f * (uniform() - 0.5f);
        if (has_min) put_half(&data[at + codes + 32 + 2 * r], minimum);
      }
    }
    m.data = data.data();
    return m;
  }

  static void put_half(uint8_t* at, float value) {
    const uint16_t half = qe::float_to_half(value);
    std::memcpy(at, &half, 2);
  }

  float uniform() { return static_cast<float>(random_() % 65536) / 65536.0f; }

  std::mt19937 random_;
  std::vector<std::vector<uint8_t>> storage_;
  std::vector<std::vector<int32_t>> orders_;
};

using Logits = std::vector<float>;

double distance(const Logits& a, const Logits& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  // NaN must not pass as small.
  const double relative = std::sqrt(difference / norm);
  return a.size() == b.size() && relative >= 0 ? relative : INFINITY;
}

struct Harness {
  const qe::Model& model;
  const qe::IsaTable& isa;
  qe::SessionParams params;
  std::vector<int> tokens;

  qe::Session session() const { return qe::Session(model, isa, params); }

  // Logits of tokens [begin, end) of the text, continuing the sequence in calls of `chunk` rows.
  Logits feed(qe::Session& session, int sequence, int begin, int end, int chunk) const {
    Logits all;
    for (int start = begin; start < end; start += chunk) {
      std::vector<qe::Row> rows;
      for (int i = start; i < std::min(start + chunk, end); ++i) {
        rows.push_back({sequence, i, tokens[i], 1});
      }
      session.forward(rows.data(), static_cast<int>(rows.size()));
      for (int i = 0; i < session.logits_rows(); ++i) {
        all.insert(all.end(), session.logits(i), session.logits(i) + model.config.vocab);
      }
    }
    return all;
  }
};

bool throws(const std::function<void()>& body) {
  try {
    body();
    return false;
  } catch (const qe::Error& error) {
    return error.status == qe::kArgument;
  }
}

void test_equivalences(const Harness& h, const std::string& name) {
  // A row's result does not depend on the rows beside it, to the last bit.
  const double tolerance = 0;
  const int n = static_cast<int>(h.tokens.size());
  qe::Session whole = h.session();
  const Logits reference = h.feed(whole, 0, 0, n, n);
  for (int chunk : {1, 7, 16, 33}) {
    qe::Session other = h.session();
    const double error = distance(h.feed(other, 0, 0, n, chunk), reference);
    check(error <= tolerance, name + " in chunks of " + std::to_string(chunk), error);
  }

  whole.truncate(0, n / 2);
  const Logits tail(reference.begin() + static_cast<size_t>(n / 2) * h.model.config.vocab,
                    reference.end());
  double error = distance(h.feed(whole, 0, n / 2, n, 5), tail);
  check(error <= tolerance, name + " truncated and refilled", error);

  whole.fork(0, 1, n / 2);
  error = distance(h.feed(whole, 1, n / 2, n, 9), tail);
  check(error <= tolerance, name + " forked", error);
  whole.truncate(0, n / 2);
  error = distance(h.feed(whole, 0, n / 2, n, 9), tail);
  check(error <= tolerance, name + " the fork's source", error);

  // Two sequences interleaved in one call, the second one token behind.
  qe::Session both = h.session();
  Logits first, second;
  for (int i = 0; i <= n; ++i) {
    std::vector<qe::Row> rows;
    if (i < n) rows.push_back({0, i, h.tokens[i], 1});
    if (i > 0) rows.push_back({1, i - 1, h.tokens[i - 1], 1});
    both.forward(rows.data(), static_cast<int>(rows.size()));
    for (size_t r = 0; r < rows.size(); ++r) {
      Logits& out = rows[r].sequence == 0 ? first : second;
      const float* logits = both.logits(static_cast<int>(r));
      out.insert(out.end(), logits, logits + h.model.config.vocab);
    }
  }
  error = std::max(distance(first, reference), distance(second, reference));
  check(error <= tolerance, name + " two sequences in one call", error);
}

// One row against a context of several KV chunks, which several threads share between them.
void test_long_context(const Harness& base, const std::string& name) {
  constexpr int kLong = 2100, kDecoded = 4;
  Harness h = base;
  h.params.context = kLong;
  h.params.max_rows = 64;
  h.params.kv_type = qe::KvType::kI8;
  h.tokens.resize(kLong);
  for (int i = 0; i < kLong; ++i) h.tokens[i] = (i * 37 + i / 11) % h.model.config.vocab;
  Logits single;
  for (int threads : {1, 3}) {
    h.params.threads = h.params.prefill_threads = threads;
    qe::Session session = h.session();
    h.feed(session, 0, 0, kLong - kDecoded, 64);
    const Logits decoded = h.feed(session, 0, kLong - kDecoded, kLong, 1);
    if (threads == 1) {
      single = decoded;
    } else {
      const double error = distance(decoded, single);
      check(error == 0, name + " long context split between threads", error);
    }
  }
}

// Lengthening for measurements: copies in memory of their own, and nothing else is touched.
void test_stretch(const Harness& base, const std::string& name) {
  const int begun = qe::kKvBlock + 3, length = qe::kChunkPositions + 2 * qe::kKvBlock + 5;
  Harness h = base;
  const qe::ModelConfig& c = h.model.config;
  h.params.context = length + 1;
  h.params.max_rows = begun + 4;
  h.tokens.resize(begun + 4, 1);
  qe::Session session = h.session();
  const Logits reference = h.feed(session, 0, 0, begun + 4, begun + 4);
  session.truncate(0, begun);
  session.fork(0, 1, begun);
  session.stretch(0, length);
  const qe::KvSequence& stretched = session.sequence(0);
  const size_t block = qe::kv_block_bytes(h.params.kv_type, c.head_dim);
  bool copied = stretched.length() == length && stretched.chunks() == 2;
  for (int layer = 0; layer < c.layers; ++layer) {
    for (int head = 0; head < c.kv_heads; ++head) {
      const uint8_t* first = stretched.chunk(0).values(layer, head);
      const uint8_t* last = stretched.chunk(1).values(layer, head) + 2 * block;
      copied = copied && std::memcmp(first, last, block) == 0 &&
               std::memcmp(stretched.chunk(1).keys(layer, head), first, block) != 0;
    }
  }
  check(copied, name + " stretched", 0);
  const qe::Row next{0, length, 1, 1};
  session.forward(&next, 1);
  const float* logits = session.logits(0);
  check(std::all_of(logits, logits + c.vocab, [](float x) { return std::isfinite(x); }),
        name + " goes on after a stretch", 0);
  // The slots behind the truncation are written anew.
  const Logits tail(reference.begin() + static_cast<size_t>(begun) * c.vocab, reference.end());
  session.truncate(0, begun);
  double error = distance(h.feed(session, 0, begun, begun + 4, 2), tail);
  error = std::max(error, distance(h.feed(session, 1, begun, begun + 4, 4), tail));
  check(error == 0, name + " undone stretch", error);
  session.truncate(1, qe::kKvBlock - 1);
  check(throws([&] { session.stretch(1, length); }) && throws([&] { session.stretch(0, 2); }) &&
            throws([&] { session.stretch(0, h.params.context + 1); }) &&
            session.sequence(1).length() == qe::kKvBlock - 1,
        name + " refuses to stretch out of range", 0);
}

void test_refusals(const Harness& h, const std::string& name) {
  qe::Session session = h.session();
  h.feed(session, 0, 0, 8, 8);
  const auto refused = [&](qe::Row row) { return throws([&] { session.forward(&row, 1); }); };
  check(refused({0, 9, 1, 1}) && refused({0, 7, 1, 1}) && refused({2, 0, 1, 1}) &&
            refused({0, 8, -1, 1}) && refused({0, 8, h.model.config.vocab, 1}),
        name + " refuses rows out of range", 0);
  check(throws([&] { session.truncate(0, 9); }) && throws([&] { session.truncate(5, 0); }) &&
            throws([&] { session.fork(0, 1, 9); }),
        name + " refuses lengths out of range", 0);
  check(session.sequence(0).length() == 8, name + " is unchanged by refusals", 0);
}

void test_model(const Harness& base, const std::string& name) {
  for (int threads : {1, 2, 3}) {
    for (qe::KvType type : {qe::KvType::kF16, qe::KvType::kI8, qe::KvType::kI4}) {
      Harness h = base;
      h.params.threads = h.params.prefill_threads = threads;
      h.params.kv_type = type;
      const char* const kinds[qe::kKvTypes] = {" f16 ", " int8 ", " int4 "};
      const std::string label =
          name + kinds[static_cast<int>(type)] + std::to_string(threads) + " threads";
      test_equivalences(h, label);
      if (threads == 2) test_refusals(h, label);
      if (threads == 2) test_stretch(h, label);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  // A long text crosses KV chunks and the split of a long context; slow machines take a short one.
  const int length = argc > 1 ? std::atoi(argv[1]) : 300;
  const qe::ModelConfig configs[] = {{2, 96, 160, 3, 1, 32, 203, 4096, 1e-6f, 10000.0f},
                                     {3, 160, 224, 4, 2, 64, 101, 4096, 1e-6f, 10000.0f}};
  for (const qe::ModelConfig& config : configs) {
    RandomModel random(config, config.heads == 3);
    Harness h{random.model, qe::active_table(), {length + 8, 2, length, 2, 2, {}, false}, {}};
    std::mt19937 text(3);
    for (int i = 0; i < length; ++i) h.tokens.push_back(static_cast<int>(text() % config.vocab));
    const std::string name = std::string(h.isa.name) + " hidden " + std::to_string(config.hidden);
    test_model(h, name);
    if (length >= 300) test_long_context(h, name);
    Harness reference = h;
    reference.params.fp32_activations = true;
    reference.params.kv_type = qe::KvType::kF32;
    test_equivalences(reference, name + " fp32 activations");
  }
  std::printf("%s: %d passed, %d failed\n", qe::active_table().name, passed, failed);
  return failed != 0;
}
