"""Whole processes side by side: time from the start to the first token, and peak memory.

qwen-edge is ``qwen-edge run``, its interpreter and command line included; llama.cpp is
llama_process.cpp, which has neither. The page cache is warm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.machine import COMPILER, machine_facts
from benchmarks.peers.systems import ROOT, Place
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.model.packed import open_model

SOURCE = Path(__file__).with_name("llama_process.cpp")
# 15 tokens of Qwen3's.
PROMPT = "The three most important things about relativity are that time, space and mass"
CONTEXT = 2048
ANSWER = 64


@dataclass(frozen=True)
class Measured:
    """What one process did.

    Attributes:
        first_byte: seconds from its start to its first byte on standard output.
        seconds: likewise to its end.
        peak: its largest resident size, bytes, as the kernel reports it.
    """

    first_byte: float
    seconds: float
    peak: int


def measure_process(command: list[str], prompt: str) -> Measured:
    """Runs a command with a prompt on its standard input.

    Raises:
        RuntimeError: it failed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(prompt.encode())
    process.stdin.close()
    os.read(process.stdout.fileno(), 1)
    first = time.perf_counter() - start
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return Measured(first, time.perf_counter() - start, usage.ru_maxrss * 1024)


def our_command(place: Place, kv: str, tokens: int) -> list[str]:
    """``qwen-edge run`` with two threads and the prompt as it is."""
    return [
        *(sys.executable, "-m", "qwen_edge", "run", "--model", str(place.qedge), "--raw"),
        *("--context", str(CONTEXT), "--kv", kv, "--threads", "2", "--prefill-threads", "2"),
        *("--max-tokens", str(tokens), "--temperature", "0"),
    ]


def build_llama_process(place: Place) -> str:
    """Compiles llama_process.cpp against the library of llama-cpp-python."""
    (packages,) = (place.folder / "llama" / "lib").glob("python3.*/site-packages")
    libraries = packages / "llama_cpp" / "lib"
    program = str(place.folder / "llama_process")
    command = [COMPILER, "-O2", "-std=c++17", f"-I{packages / 'include'}", "-o", program]
    command += [str(SOURCE), f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    subprocess.run([*command, "-lllama", "-lggml", "-lggml-base"], check=True)
    return program


def their_command(place: Place, program: str, repack: bool, tokens: int) -> list[str]:
    """llama_process with two threads."""
    return [program, str(place.gguf("q4_0")), str(CONTEXT), "2", str(int(repack)), str(tokens)]


def _in_turns(
    name: str,
    commands: dict[str, list[str]],
    prompt: str,
    repeats: int,
    figure: Callable[[Measured], float],
) -> dict[str, object]:
    begin = time.time()
    for command in commands.values():
        measure_process(command, prompt)
    values: dict[str, list[float]] = {label: [] for label in commands}
    for _ in range(repeats):
        for label, command in commands.items():
            values[label].append(figure(measure_process(command, prompt)))
    return {
        "part": name,
        "date": time.strftime("%Y-%m-%d", time.gmtime(begin)),
        "seconds": round(time.time() - begin, 1),
        "threads": 2,
        "machine": machine_facts(),
        "values": values,
        "failed": {},
    }


def first_token(place: Place) -> dict[str, object]:
    """Seconds from process start to the first byte of the answer to PROMPT."""
    program = build_llama_process(place)
    commands = {
        "qwen-edge": our_command(place, "int8", 4),
        "llama.cpp, leanest": their_command(place, program, False, 4),
        "llama.cpp, repacked": their_command(place, program, True, 4),
    }
    return _in_turns("first-token", commands, PROMPT, 15, lambda m: m.first_byte)


def peak_memory(place: Place) -> dict[str, object]:
    """Peak resident bytes with a context of 2,048 tokens, all of it filled."""
    program = build_llama_process(place)
    # Every word but the first has a token of its own.
    prompt = ("word " * (CONTEXT - ANSWER)).strip()
    commands = {
        "qwen-edge INT8 KV": our_command(place, "int8", ANSWER),
        "llama.cpp, repacked (default)": their_command(place, program, True, ANSWER),
        "llama.cpp, leanest": their_command(place, program, False, ANSWER),
    }
    record = _in_turns("peak-memory", commands, prompt, 3, lambda m: float(m.peak))
    with open_model(place.qedge) as model:
        per_token = kv_bytes_per_token(model.config, "int8")
        record["weight_bytes"] = model.size
    record["kv_bytes"] = per_token * CONTEXT
    return record


PROCESS_PARTS = {"first-token": first_token, "peak-memory": peak_memory}
