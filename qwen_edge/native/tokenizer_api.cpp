// The C interface of the tokenizer; qwen_edge/text/tokenizer.py is its caller.
#include <cstring>
#include <memory>

#include "status.h"
#include "tokenizer.h"
#include "utf8.h"

namespace qe {

namespace {

const Tokenizer& checked(const Tokenizer* tokenizer) {
  if (!tokenizer) throw Error(kArgument, "there is no tokenizer");
  return *tokenizer;
}

}  // namespace

}  // namespace qe

// The blob must stay mapped and unchanged until the handle is closed.
QE_API int32_t qe_tokenizer_open(const void* blob, uint64_t size, qe::Tokenizer** out) {
  return qe::guarded([&] { *out = std::make_unique<qe::Tokenizer>(blob, size).release(); });
}

QE_API int32_t qe_tokenizer_close(qe::Tokenizer* tokenizer) {
  return qe::guarded([&] { delete tokenizer; });
}

QE_API int32_t qe_tokenizer_counts(const qe::Tokenizer* tokenizer, uint32_t* vocab,
                                   uint32_t* added) {
  return qe::guarded([&] {
    *vocab = qe::checked(tokenizer).vocab_count();
    *added = tokenizer->added_count();
  });
}

// The added token number `index` (0 .. added - 1, in the order of their bytes).
QE_API int32_t qe_tokenizer_added(const qe::Tokenizer* tokenizer, uint32_t index, uint32_t* id,
                                  int32_t* special) {
  return qe::guarded([&] {
    if (index >= qe::checked(tokenizer).added_count()) {
      throw qe::Error(qe::kArgument, "there is no added token of that number");
    }
    *id = tokenizer->added_id(index);
    *special = tokenizer->is_special(*id);
  });
}

// Stores up to `capacity` ids and sets *count to how many the text has.
QE_API int32_t qe_tokenizer_encode(const qe::Tokenizer* tokenizer, const char* text,
                                   uint64_t length, int32_t allow_added, int32_t* out,
                                   uint64_t capacity, uint64_t* count) {
  return qe::guarded([&] {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text);
    // Places in a piece are 32-bit, and normalization can triple it.
    if (length > (uint64_t{1} << 30)) throw qe::Error(qe::kArgument, "the text is too long");
    if (!qe::utf8::valid(bytes, bytes + length)) {
      throw qe::Error(qe::kArgument, "the text is not valid UTF-8");
    }
    qe::IdSink sink{out, capacity, 0};
    qe::checked(tokenizer).encode(bytes, length, allow_added != 0, sink);
    *count = sink.count;
  });
}

// Sets *count to how many bytes the ids stand for; they are all stored if `capacity` is enough. Ids
// outside the vocabulary stand for nothing: models have more rows than tokens.
QE_API int32_t qe_tokenizer_decode(const qe::Tokenizer* tokenizer, const int32_t* ids,
                                   uint64_t id_count, int32_t skip_special, char* out,
                                   uint64_t capacity, uint64_t* count) {
  return qe::guarded([&] {
    const auto& self = qe::checked(tokenizer);
    uint64_t length = 0;
    for (uint64_t i = 0; i < id_count; ++i) {
      const auto id = static_cast<uint32_t>(ids[i]);
      if (id >= self.vocab_count() || (skip_special && self.is_special(id))) continue;
      const qe::TokenBytes bytes = self.token(id);
      if (bytes.size && bytes.size <= capacity && length <= capacity - bytes.size) {
        std::memcpy(out + length, bytes.data, bytes.size);
      }
      length += bytes.size;
    }
    *count = length;
  });
}

// The bytes of a token, valid as long as the blob; none for an id outside the vocabulary.
QE_API int32_t qe_tokenizer_token_bytes(const qe::Tokenizer* tokenizer, int32_t id,
                                        const char** bytes, uint32_t* length) {
  return qe::guarded([&] {
    const auto& self = qe::checked(tokenizer);
    qe::TokenBytes found{nullptr, 0};
    if (static_cast<uint32_t>(id) < self.vocab_count()) {
      found = self.token(static_cast<uint32_t>(id));
    }
    *bytes = reinterpret_cast<const char*>(found.data);
    *length = static_cast<uint32_t>(found.size);
  });
}
