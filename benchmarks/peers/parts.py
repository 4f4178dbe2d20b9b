"""What is measured side by side.

A part takes less than four minutes, but for the first time at a depth: llama.cpp then fills its
cache, which a file keeps for later runs.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.systems import Place, System, llama, openvino, ours
from benchmarks.peers.turns import Case, Part

ROOM = 256
"""Positions beyond a prompt."""


def _decode(label: str, system: System, tokens: int, depth: int = 0, state: str = "") -> Case:
    return Case(label, system, "decode", {"depth": depth, "tokens": tokens}, tokens, state)


def _prefill(label: str, system: System, tokens: int) -> Case:
    return Case(label, system, "prefill", {"tokens": tokens}, tokens)


def _decode_part(place: Place, threads: int, repeats: int) -> Part:
    kinds = {
        "llama.cpp Q4_0, Q4_0 head": "q4_0",
        "llama.cpp Q4_0": "q4_0-default",
        "llama.cpp Q4_K_M": "q4_k_m-default",
    }
    cases = [_decode("qwen-edge INT8 KV", ours(place, 512, threads=threads), 128)]
    cases += [
        _decode(label, llama(place, 512, kind=kind, threads=threads), 128)
        for label, kind in kinds.items()
    ]
    cases.append(_decode("OpenVINO GenAI INT4", openvino(place, threads), 128))
    return Part(f"decode-{threads}-threads", cases, repeats, limits=threads)


def decode_2_threads(place: Place) -> Part:
    return _decode_part(place, 2, 9)


def decode_1_thread(place: Place) -> Part:
    return _decode_part(place, 1, 7)


def _depth_part(place: Place, depth: int, tokens: int, repeats: int) -> Part:
    context = depth + ROOM
    cases = [
        _decode(f"qwen-edge {kv.upper()} KV", ours(place, context, kv=kv), tokens, depth)
        for kv in ("int8", "int4", "f16")
    ]
    settings = {
        "llama.cpp -fa 0, f16 KV": {"flash": "off"},
        "llama.cpp default": {},
        "llama.cpp q8_0 KV": {"kv": "q8_0", "flash": "on"},
    }
    for label, options in settings.items():
        kept = "-".join(["state", str(depth), *map(str, options.values())])
        state = str(place.folder / kept)
        cases.append(_decode(label, llama(place, context, **options), tokens, depth, state))
    return Part(f"decode-depth-{depth}", cases, repeats)


def decode_depth_2048(place: Place) -> Part:
    return _depth_part(place, 2048, 32, 7)


def decode_depth_8192(place: Place) -> Part:
    return _depth_part(place, 8192, 16, 5)


def _prefill_part(place: Place, tokens: int, repeats: int) -> Part:
    context = tokens + ROOM
    cases = [
        _prefill("qwen-edge INT8 KV", ours(place, context), tokens),
        _prefill("llama.cpp default", llama(place, context), tokens),
        _prefill("llama.cpp -fa 0, f16 KV", llama(place, context, flash="off"), tokens),
    ]
    cases.append(_prefill("OpenVINO GenAI INT4", openvino(place), tokens))
    return Part(f"prefill-{tokens}", cases, repeats, peak=True)


def prefill_512(place: Place) -> Part:
    return _prefill_part(place, 512, 9)


def prefill_2048(place: Place) -> Part:
    return _prefill_part(place, 2048, 3)


def prefill_8192(place: Place) -> Part:
    return _prefill_part(place, 8192, 1)


def batches(place: Place) -> Part:
    tokens = 32
    mine, theirs = ours(place, 512, sequences=16), llama(place, 512, sequences=16)

    def case(label: str, system: System, n: int) -> Case:
        arguments = {"sequences": n, "tokens": tokens}
        return Case(f"{label}, {n}", system, "batch", arguments, n * tokens)

    cases = [case("qwen-edge", mine, n) for n in (1, 2, 4, 8, 16)]
    cases += [case("llama.cpp", theirs, n) for n in (1, 8, 16)]
    return Part("batches", cases, 7)


def sampler(place: Place) -> Part:
    draws = {"draws": 200}
    cases = [
        Case("qwen-edge", ours(place, 512), "sample", draws),
        Case("llama.cpp", llama(place, 512), "sample", draws),
    ]
    return Part("sampler", cases, 15, limits=0)


def avx2(place: Place) -> Part:
    mine = ours(place, 768, isa="avx2")
    theirs = llama(place, 768, part="llama-avx2")
    cases = [
        _decode("qwen-edge avx2, decode", mine, 64),
        _decode("llama.cpp AVX2, decode", theirs, 64),
        _prefill("qwen-edge avx2, prefill", mine, 512),
        _prefill("llama.cpp AVX2, prefill", theirs, 512),
    ]
    return Part("avx2", cases, 9)


def transformers(place: Place) -> Part:
    model = str(place.models / "hf")
    cases = [_decode("qwen-edge INT8 KV", ours(place, 512), 32)]
    for label, kind in (("bitsandbytes NF4", "nf4"), ("transformers bf16", "bf16")):
        system = System("transformers", model, options=(("kind", kind),))
        cases.append(_decode(label, system, 8))
    return Part("transformers", cases, 5)


PARTS: dict[str, Callable[[Place], Part]] = {
    "decode-2-threads": decode_2_threads,
    "decode-1-threads": decode_1_thread,
    "decode-depth-2048": decode_depth_2048,
    "decode-depth-8192": decode_depth_8192,
    "prefill-512": prefill_512,
    "prefill-2048": prefill_2048,
    "prefill-8192": prefill_8192,
    "batches": batches,
    "sampler": sampler,
    "avx2": avx2,
    "transformers": transformers,
}
