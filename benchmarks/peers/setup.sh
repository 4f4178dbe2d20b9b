#!/usr/bin/env bash
# Makes the peers' environments: benchmarks/peers/setup.sh FOLDER [PART...]
#
# Parts: llama (llama-cpp-python from PyPI, compiled for this processor), llama-avx2 (the same
# without AVX-512), transformers (with bitsandbytes), openvino. All of them by default. Each is a
# virtual environment FOLDER/PART; one that is whole is left as it is. PYTHON names the
# interpreter, JOBS the compilers at a time. Needs a C++ compiler; pip brings cmake.
set -euo pipefail

constraints=$(dirname "$0")/../../.ci/constraints.txt
root=${1:?usage: setup.sh FOLDER [PART...]}
shift
parts=("$@")
[ $# -gt 0 ] || parts=(llama llama-avx2 transformers openvino)
export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)}
avx2="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF"

# The wheel that pip keeps of an earlier build was made with that build's flags: --no-cache-dir.
llama() {
  CMAKE_ARGS=$1 "$2/bin/pip" install --quiet --no-cache-dir --no-binary llama-cpp-python \
    numpy gguf llama-cpp-python
}

for part in "${parts[@]}"; do
  venv=$root/$part
  [ -e "$venv/whole" ] && continue
  "${PYTHON:-python3}" -m venv "$venv"
  case $part in
    llama) llama "-DGGML_NATIVE=ON" "$venv" ;;
    llama-avx2) llama "$avx2" "$venv" ;;
    transformers)
      # The index of CPU builds: PyPI's own torch brings gigabytes for graphics cards.
      "$venv/bin/pip" install --quiet --retries 1 -c "$constraints" torch \
        --extra-index-url https://download.pytorch.org/whl/cpu
      "$venv/bin/pip" install --quiet transformers bitsandbytes accelerate safetensors
      ;;
    openvino) "$venv/bin/pip" install --quiet "optimum-intel[openvino]" nncf openvino-genai ;;
    *) echo "There is no part $part." >&2 && exit 2 ;;
  esac
  touch "$venv/whole"
  echo "$venv is ready."
done
