"""Calls llama_model_quantize: ``python llama_quantize.py IN.gguf OUT.gguf TYPE``.

Runs in the environment of benchmarks/peers/setup.sh, which has llama-cpp-python and numpy.
"""

from __future__ import annotations

import argparse
import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("type")
    parser.add_argument("--pure", action="store_true", help="the same type for every matrix")
    parser.add_argument("--importance", type=Path, help="an .npz of fp32 by tensor names")
    arguments = parser.parse_args()
    params = api.llama_model_quantize_default_params()
    params.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{arguments.type}")
    params.pure = arguments.pure
    entries = None
    if arguments.importance:
        arrays = {k: np.ascontiguousarray(v) for k, v in np.load(arguments.importance).items()}
        # An entry without a name ends the list.
        entries = (api.llama_model_imatrix_data * (len(arrays) + 1))()
        for entry, (name, values) in zip(entries, arrays.items(), strict=False):
            entry.name = name.encode()
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry.size = values.size
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(api.llama_model_imatrix_data))
    files = [str(path).encode() for path in (arguments.source, arguments.output)]
    if api.llama_model_quantize(*files, ctypes.byref(params)):
        raise SystemExit("llama_model_quantize failed")
    print(llama_cpp.__version__)


if __name__ == "__main__":
    main()
