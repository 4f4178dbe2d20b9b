"""Start-up: process start to exit of a one-line answer, the imports in it, and opening a model.

    python benchmarks/startup.py [--model NAME|PATH] [--repeats 11]

Prints medians with their ranges. The page cache is warm after the first, uncounted run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def spread(values: list[float]) -> str:
    """Median and range of seconds, in milliseconds."""
    low, middle, high = (1000 * f(values) for f in (min, statistics.median, max))
    return f"{middle:7.1f} ms  ({low:.1f} to {high:.1f})"


def run_command(model: str) -> list[str]:
    """The command that is timed."""
    return [sys.executable, "-m", "qwen_edge", "run", "--model", model, "--max-tokens", "1", "Hi"]


def wall_seconds(command: list[str]) -> float:
    """Seconds from starting the process to its exit."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def import_seconds(command: list[str]) -> float:
    """Sum of the self times that ``-X importtime`` reports, Python's own start included."""
    result = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    own = [line.removeprefix("import time:").split("|")[0].strip() for line in lines]
    return sum(int(value) for value in own if value.isdigit()) / 1e6


def open_seconds(path: Path) -> float:
    """Seconds to open, check and close a model file in this process."""
    from qwen_edge.model.packed import open_model

    start = time.perf_counter()
    open_model(path).close()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    command = run_command(arguments.model)
    bare = [sys.executable, "-c", "pass"]
    for timed in (command, bare):
        wall_seconds(timed)
    interpreter, whole = [], []
    for _ in range(arguments.repeats):
        interpreter.append(wall_seconds(bare))
        whole.append(wall_seconds(command))
    imports = [import_seconds(command) for _ in range(arguments.repeats)]
    print(f"python -c pass         {spread(interpreter)}")
    print(f"qwen-edge run, 1 token {spread(whole)}")
    print(f"imports of it          {spread(imports)}")
    if Path(arguments.model).is_file():
        opens = [open_seconds(Path(arguments.model)) for _ in range(arguments.repeats + 1)][1:]
        print(f"opening the model      {spread(opens)}")


if __name__ == "__main__":
    main()
