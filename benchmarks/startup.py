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


def imported_modules(command: list[str]) -> list[str]:
    """The modules that the command has imported at its end, in the order of their import."""
    code = (
        "import atexit, sys\n"
        "from qwen_edge.__main__ import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr, sep='\\n'))\n"
        f"sys.argv[1:] = {command[3:]!r}\n"
        "sys.exit(main())\n"
    )
    result = subprocess.run([command[0], "-c", code], check=True, capture_output=True, text=True)
    return [name for name in result.stderr.splitlines() if name != "__main__"]


def import_seconds(python: str, modules: list[str]) -> float:
    """Seconds that a fresh interpreter takes to import the modules."""
    code = (
        "import time\n"
        "start = time.perf_counter()\n"
        f"for name in {modules!r}: __import__(name)\n"
        "print(time.perf_counter() - start)\n"
    )
    result = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return float(result.stdout)


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
    modules = imported_modules(command)
    imports = [import_seconds(command[0], modules) for _ in range(arguments.repeats)]
    print(f"python -c pass         {spread(interpreter)}")
    print(f"qwen-edge run, 1 token {spread(whole)}")
    print(f"imports of it          {spread(imports)}")
    if Path(arguments.model).is_file():
        opens = [open_seconds(Path(arguments.model)) for _ in range(arguments.repeats + 1)][1:]
        print(f"opening the model      {spread(opens)}")


if __name__ == "__main__":
    main()
