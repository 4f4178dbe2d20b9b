#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "status.h"

namespace qe {
namespace {

constexpr int kBlock = 64;

bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// A step of splitmix64 (Steele, Lea, Flood 2014).
uint64_t next_random(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

}  // namespace

void largest(const IsaTable& isa, const float* logits, int vocab, int n,
             std::vector<Candidate>* out) {
  out->clear();
  n = std::min(n, vocab);
  if (n < 1) return;
  // The n-th largest of the block maximums is a lower bound of the n-th largest logit: only blocks
  // that reach it have to be looked into.
  const int blocks = (vocab + kBlock - 1) / kBlock;
  float threshold = -INFINITY;
  if (n < blocks) {
    std::vector<float> maximums(blocks);
    for (int b = 0; b < blocks; ++b) {
      const float value = isa.maximum(logits + b * kBlock, std::min(kBlock, vocab - b * kBlock));
      // A NaN would break the ordering below.
      maximums[b] = value > -INFINITY ? value : -INFINITY;
    }
    std::vector<float> order = maximums;
    std::nth_element(order.begin(), order.begin() + (n - 1), order.end(), std::greater<float>());
    threshold = order[n - 1];
    for (int b = 0; b < blocks; ++b) {
      if (!(maximums[b] >= threshold)) continue;
      for (int i = b * kBlock; i < std::min((b + 1) * kBlock, vocab); ++i) {
        if (logits[i] >= threshold) out->push_back({i, logits[i]});
      }
    }
  } else {
    for (int i = 0; i < vocab; ++i) {
      if (!std::isnan(logits[i])) out->push_back({i, logits[i]});
    }
  }
  if (static_cast<int>(out->size()) > n) {
    std::nth_element(out->begin(), out->begin() + n, out->end(), better);
    out->resize(n);
  }
  std::sort(out->begin(), out->end(), better);
}

Sampler::Sampler(const IsaTable& isa, int vocab, const SamplingParams& params)
    : isa_(isa), vocab_(vocab), params_(params), state_(params.seed), seen_(vocab) {
  if (vocab < 1 || !(params.temperature >= 0) || !(params.top_p > 0 && params.top_p <= 1) ||
      !(params.min_p >= 0 && params.min_p <= 1) || !(params.repetition_penalty > 0) ||
      !std::isfinite(params.presence_penalty) || params.top_k < 0) {
    throw Error(kArgument, "a sampling parameter is out of range");
  }
}

void Sampler::set_bias(const int32_t* ids, const float* bias, int n) {
  std::vector<std::pair<int32_t, float>> pairs;
  for (int i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_) throw Error(kArgument, "a biased token does not exist");
    if (std::isnan(bias[i])) throw Error(kArgument, "a logit bias is not a number");
    pairs.emplace_back(ids[i], bias[i]);
  }
  bias_.swap(pairs);
}

void Sampler::set_allowed(const uint32_t* bits) {
  const size_t words = (static_cast<size_t>(vocab_) + 31) / 32;
  std::vector<uint32_t> copy(bits ? bits : nullptr, bits ? bits + words : nullptr);
  if (bits) {
    if (vocab_ % 32 != 0) copy.back() &= (1u << vocab_ % 32) - 1;
    if (std::all_of(copy.begin(), copy.end(), [](uint32_t word) { return word == 0; })) {
      throw Error(kArgument, "no token is allowed");
    }
  }
  allowed_.swap(copy);
}

void Sampler::accept(int token, bool generated) {
  if (token < 0 || token >= vocab_) throw Error(kArgument, "an accepted token does not exist");
  if (seen_[token] == 0) seen_ids_.push_back(token);
  seen_[token] |= generated ? 3 : 1;
}

// Applies penalties and biases, noting what the logits were before.
void Sampler::adjust(float* logits) {
  changes_.clear();
  const bool repetition = params_.repetition_penalty != 1, presence = params_.presence_penalty != 0;
  if (repetition || presence) {
    for (int32_t id : seen_ids_) {
      changes_.push_back({id, logits[id]});
      if (repetition) {
        logits[id] = logits[id] > 0 ? logits[id] / params_.repetition_penalty
                                    : logits[id] * params_.repetition_penalty;
      }
      if (presence && (seen_[id] & 2)) logits[id] -= params_.presence_penalty;
    }
  }
  for (const auto& [id, bias] : bias_) {
    changes_.push_back({id, logits[id]});
    logits[id] += bias;
  }
}

void Sampler::require_candidates() const {
  if (candidates_.empty()) throw Error(kFormat, "it computes logits that are not numbers");
}

double Sampler::uniform() { return static_cast<double>(next_random(&state_) >> 11) * 0x1p-53; }

int Sampler::draw_from_all(const float* logits, float maximum, double total) {
  const double target = uniform() * total;
  double sum = 0;
  int last = 0;
  for (int i = 0; i < vocab_; ++i) {
    const double weight = std::exp((logits[i] - maximum) / params_.temperature);
    if (weight > 0) last = i;
    sum += weight;
    if (sum > target) return i;
  }
  return last;
}

// Draws from candidates_ (best first), whose distribution top-p and min-p cut; `total` is the sum
// of exp((logit - best) / temperature) over everything top-k left.
int Sampler::pick(double total) {
  require_candidates();
  const float best = candidates_[0].logit;
  const auto weight = [&](const Candidate& c) {
    return std::exp(static_cast<double>(c.logit - best) / params_.temperature);
  };
  size_t kept = 0;
  double sum = 0;
  for (; kept < candidates_.size(); ++kept) {
    const double w = weight(candidates_[kept]);
    if (kept > 0 && (sum >= params_.top_p * total || w < params_.min_p)) break;
    sum += w;
  }
  double target = uniform() * sum;
  for (size_t i = 0; i < kept; ++i) {
    target -= weight(candidates_[i]);
    if (target < 0) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;
}

int Sampler::draw(const float* logits) {
  if (params_.temperature == 0 || params_.top_k == 1) {
    largest(isa_, logits, vocab_, 1, &candidates_);
    require_candidates();
    return candidates_[0].id;
  }
  if (params_.top_k > 0) {
    largest(isa_, logits, vocab_, params_.top_k, &candidates_);
    require_candidates();
    double total = 0;
    for (const Candidate& c : candidates_) {
      total += std::exp(static_cast<double>(c.logit - candidates_[0].logit) / params_.temperature);
    }
    return pick(total);
  }
  const float maximum = isa_.maximum(logits, vocab_);
  scaled_.resize(vocab_);
  for (int i = 0; i < vocab_; ++i) scaled_[i] = (logits[i] - maximum) / params_.temperature;
  const double total = isa_.sum_exp(scaled_.data(), vocab_, 0);
  if (params_.top_p >= 1 && params_.min_p == 0) return draw_from_all(logits, maximum, total);
  // Candidates down to ever smaller probabilities, until they hold what top-p and min-p keep.
  for (float depth = 8;; depth *= 2) {
    const float threshold = depth < 100 ? maximum - depth * params_.temperature : -INFINITY;
    candidates_.clear();
    double sum = 0;
    for (int i = 0; i < vocab_; ++i) {
      if (logits[i] >= threshold) {
        candidates_.push_back({i, logits[i]});
        sum += std::exp(scaled_[i]);
      }
    }
    const bool enough_mass = params_.top_p < 1 && sum >= params_.top_p * total;
    const bool below_min_p = params_.min_p > 0 && std::exp(-depth) < params_.min_p;
    if (enough_mass || below_min_p || threshold == -INFINITY) break;
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
  return pick(total);
}

void Sampler::restore(float* logits) {
  // Backwards, so that an id changed twice gets its first value.
  for (size_t i = changes_.size(); i-- > 0;) logits[changes_[i].id] = changes_[i].original;
}

int Sampler::sample(float* logits) {
  adjust(logits);
  try {
    int token;
    if (allowed_.empty()) {
      token = draw(logits);
    } else {
      masked_.assign(logits, logits + vocab_);
      for (int i = 0; i < vocab_; ++i) {
        if (!(allowed_[i / 32] >> i % 32 & 1)) masked_[i] = -INFINITY;
      }
      token = draw(masked_.data());
    }
    restore(logits);
    return token;
  } catch (...) {
    restore(logits);
    throw;
  }
}

}  // namespace qe
