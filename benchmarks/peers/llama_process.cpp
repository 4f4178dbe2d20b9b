// llama.cpp as a command, as lean as its C interface allows: no argument parser, no chat, no
// warm-up run. Writes each token's text as it comes. Built and started by processes.py.
//
//   llama_process MODEL CONTEXT THREADS REPACK(0|1) TOKENS < PROMPT
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "llama.h"

namespace {

std::string read_all() {
  std::string text;
  char part[65536];
  size_t n;
  while ((n = std::fread(part, 1, sizeof part, stdin)) > 0) text.append(part, n);
  return text;
}

llama_token likeliest(const float* logits, int vocab) {
  int best = 0;
  for (int i = 1; i < vocab; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  llama_model_params settings = llama_model_default_params();
  settings.use_extra_bufts = std::atoi(argv[4]) != 0;
  llama_model* model = llama_model_load_from_file(argv[1], settings);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = std::atoi(argv[2]);
  params.n_threads = params.n_threads_batch = std::atoi(argv[3]);
  llama_context* context = model ? llama_init_from_model(model, params) : nullptr;
  if (context == nullptr) return 1;

  const llama_vocab* vocab = llama_model_get_vocab(model);
  const std::string prompt = read_all();
  std::vector<llama_token> ids(prompt.size() + 1);
  const int n = llama_tokenize(vocab, prompt.data(), static_cast<int>(prompt.size()), ids.data(),
                               static_cast<int>(ids.size()), false, false);
  if (n < 1) return 1;
  ids.resize(n);
  for (int left = std::atoi(argv[5]); left > 0; --left) {
    if (llama_decode(context, llama_batch_get_one(ids.data(), static_cast<int>(ids.size())))) {
      return 1;
    }
    ids = {likeliest(llama_get_logits_ith(context, -1), llama_vocab_n_tokens(vocab))};
    char piece[256];
    const int length = llama_token_to_piece(vocab, ids[0], piece, sizeof piece, 0, true);
    std::fwrite(piece, 1, length > 0 ? length : 0, stdout);
    std::fflush(stdout);
  }
  std::fprintf(stderr, "%d\n", n);
}
