"""Processor time and peak memory of conversions, on a random checkpoint of a true shape.

    python -m benchmarks.convert_memory --size qwen3-4b [--method gptq nearest] [--output FILE]

Writes a bf16 checkpoint (1.2 GB for 0.6B, 8 GB for 4B) into a temporary folder, converts it with
each method in a fresh process and prints a JSON object each. The peak is that process's highest
resident memory, mapped pages of the source included; the anonymous part of it is looked up twenty
times a second. ``--output`` puts the figures into a file of results, in the place of older ones of
the same case.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
source, output, bits, group, method, codebook, threads = sys.argv[1:]
result = convert(
    Path(source), Path(output), bits=int(bits), group=int(group), method=method, codebook=codebook,
    threads=int(threads),
)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "cpu_seconds": round(time.process_time(), 1),
    "peak_mb": round(int(status["VmHWM"].split()[0]) * 1024 / 1e6, 1),
    "size_mb": round(result.size / 1e6, 1),
    "error": result.error.as_dict(),
    "torch": "torch" in sys.modules, "numpy": "numpy" in sys.modules,
}))
"""


@dataclass(frozen=True)
class Case:
    """What is converted, and how; see the options of ``qwen-edge convert``."""

    size: str
    layers: int
    bits: int
    group: int
    method: str
    codebook: str
    threads: int


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
            file.write(memoryview(part))
            left -= len(part)


def _anonymous(process: int) -> int:
    """Bytes of its own that a process has in memory, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(found[0]) if found else 0


def measure(source: Path, output: Path, case: Case) -> dict[str, Any]:
    """Converts a checkpoint; returns the case with its figures."""
    chosen = (case.bits, case.group, case.method, case.codebook, case.threads)
    command = [sys.executable, "-c", _CONVERT, str(source), str(output), *map(str, chosen)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        anonymous = 0
        while process.poll() is None:
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(0.05)
        assert process.stdout is not None
        answer = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the conversion ended with {process.returncode}")
    open_model(output).close()
    begin = time.perf_counter()
    open_model(output).close()
    opened = round((time.perf_counter() - begin) * 1e3, 2)
    figures = {"peak_anonymous_mb": round(anonymous / 1e6, 1), "open_ms": opened}
    return {**asdict(case), **json.loads(answer), **figures}


def merge_table(
    path: Path, table: str, rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> None:
    """Puts rows into a table of a file of results, each in the place of one of the same case.

    Args:
        path: a JSON object of tables, made if it is not there.
        table: its name.
        rows: the new ones.
        names: of the columns that tell cases apart.
    """
    record = json.loads(path.read_text()) if path.exists() else {}
    old = record.get(table, [])
    cases = {tuple(row[name] for name in names): row for row in [*old, *rows]}
    record[table] = list(cases.values())
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(CONFIGS), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the true shape has")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=[BEST_METHOD])
    parser.add_argument("--codebook", choices=list(CODEBOOKS), default=BEST_CODEBOOK)
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json of Qwen3")
    parser.add_argument("--folder", type=Path, help="where to write, by default the system's /tmp")
    parser.add_argument("--output", type=Path, help="a file of results")
    options = parser.parse_args()
    config = CONFIGS[options.size]
    config = replace(config, layers=options.layers or config.layers)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        directory = Path(folder)
        write_checkpoint(directory, config, options.tokenizer)
        for method in options.method:
            case = Case(
                options.size, config.layers, options.bits, options.group, method,
                options.codebook, options.threads,
            )  # fmt: skip
            row = measure(directory, directory / "model.qedge", case)
            print(json.dumps(row, indent=1), flush=True)
            if options.output:
                merge_table(options.output, "cases", [row], [*Case.__annotations__])


if __name__ == "__main__":
    main()
