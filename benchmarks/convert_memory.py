"""Time and peak memory of a conversion, on a random checkpoint of a true shape.

    python -m benchmarks.convert_memory --size qwen3-0.6b

Writes a bf16 checkpoint (1.2 GB for 0.6B) into a temporary folder, converts it in a fresh process
and prints one JSON object; VmHWM is that process's peak resident memory, mapped pages included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from qwen_edge.model.config import ModelConfig, tensor_shapes
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import CONFIGS, byte_tokenizer_json
from qwen_edge.quant.layout import CODEBOOKS
from qwen_edge.quant.methods import BEST_CODEBOOK, BEST_METHOD, METHODS

_CONVERT = """
import json, sys, time
from pathlib import Path
from qwen_edge.model.convert import convert
source, output, bits, group, method, codebook = sys.argv[1:]
begin = time.perf_counter()
result = convert(
    Path(source), Path(output), bits=int(bits), group=int(group), method=method, codebook=codebook
)
seconds = time.perf_counter() - begin
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "seconds": round(seconds, 2),
    "cpu_seconds": round(time.process_time(), 2),
    "peak_rss_mb": round(int(status["VmHWM"].split()[0]) * 1024 / 1e6, 1),
    "peak_anonymous_now_mb": round(int(status["RssAnon"].split()[0]) * 1024 / 1e6, 1),
    "size_mb": round(result.size / 1e6, 1),
    "error": result.error.as_dict(),
    "torch": "torch" in sys.modules, "numpy": "numpy" in sys.modules,
}))
"""


def write_checkpoint(directory: Path, config: ModelConfig, tokenizer: Path | None) -> None:
    """Writes a bf16 checkpoint whose weights are cut from one pool of N(0, 0.02)."""
    table = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "eos_token_id": 151645,
    }
    (directory / "config.json").write_text(json.dumps(table))
    data = tokenizer.read_bytes() if tokenizer else byte_tokenizer_json()
    (directory / "tokenizer.json").write_bytes(data)
    random = np.random.default_rng(0)
    pool = random.standard_normal(1 << 23, dtype=np.float32) * np.float32(0.02)
    # To bf16 by cutting the lower half off.
    halves = (pool.view(np.uint32) >> 16).astype(np.uint16)
    header: dict[str, object] = {}
    end = 0
    for name, shape in tensor_shapes(config).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = end // 2
        while left:
            begin = int(random.integers(0, len(halves) // 2))
            part = halves[begin : begin + left]
            file.write(part.tobytes())
            left -= len(part)


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(CONFIGS), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the true shape has")
    parser.add_argument("--bits", default="4")
    parser.add_argument("--group", default="32")
    parser.add_argument("--method", choices=list(METHODS), default=BEST_METHOD)
    parser.add_argument("--codebook", choices=list(CODEBOOKS), default=BEST_CODEBOOK)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of Qwen3")
    parser.add_argument("--folder", type=Path, help="where to write, by default the system's /tmp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        directory = Path(folder)
        config = CONFIGS[options.size]
        config = replace(config, layers=options.layers or config.layers)
        write_checkpoint(directory, config, options.tokenizer)
        output = directory / "model.qedge"
        command = [sys.executable, "-c", _CONVERT, str(directory), str(output)]
        command += [options.bits, options.group, options.method, options.codebook]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(result.stdout)
        open_model(output).close()
        begin = time.perf_counter()
        open_model(output).close()
        figures["open_ms"] = round((time.perf_counter() - begin) * 1e3, 2)
    chosen = {"size": options.size, "bits": options.bits, "method": options.method}
    print(json.dumps({**chosen, **figures}, indent=1))


if __name__ == "__main__":
    main()
