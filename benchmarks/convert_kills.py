"""Kills conversions at random moments and looks at what they leave behind.

    python -m benchmarks.convert_kills [--size qwen3-0.6b] [--kills 20] [--method nearest]

A bf16 checkpoint of random weights is converted undisturbed, then again and again with SIGKILL at
moments drawn evenly from the time that it took; every other time an older file lies under the
output's name. Allowed is the older file, byte for byte, or none, or the whole new one if the kill
came after its renaming. After each kill the conversion is run again; it must make the same bytes
as the undisturbed one and leave no temporary file. Prints a JSON object; exits with 1 if anything
else was found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.convert_memory import merge_table, write_checkpoint
from qwen_edge.model.replacing_file import SUFFIX
from qwen_edge.model.synthetic import CONFIGS
from qwen_edge.quant.methods import METHODS

OLD = b"an older file\n" * 1000
NONE = ""


class Outcome(NamedTuple):
    """What a kill left.

    Attributes:
        moment: of the kill, in seconds from the start of the process.
        killed: whether the process was still there.
        before: sha256 of what lay under the output's name, empty if nothing did.
        after: likewise, after the kill.
        leftovers: sizes of the temporary files after the kill.
        rerun: sha256 of what running it again made.
        leftovers_of_rerun: sizes of the temporary files after that.
    """

    moment: float
    killed: bool
    before: str
    after: str
    leftovers: tuple[int, ...]
    rerun: str
    leftovers_of_rerun: tuple[int, ...]

    def is_sound(self, undisturbed: str) -> bool:
        """Whether everything is as it should be; ``undisturbed`` is the whole file's sha256."""
        allowed = {self.before, undisturbed} if self.killed else {undisturbed}
        whole = self.after in allowed and self.rerun == undisturbed
        return whole and not self.leftovers_of_rerun


def digest(path: Path) -> str:
    """The sha256 of a file, empty if there is none."""
    if not path.exists():
        return NONE
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def convert_command(source: Path, output: Path, *options: str) -> list[str]:
    """The command line of a conversion."""
    return [sys.executable, "-m", "qwen_edge", "convert", str(source), "-o", str(output), *options]


def run(command: Sequence[str]) -> None:
    """Runs a command to its end, which must be a good one."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_at_random(
    command: Sequence[str], output: Path, kills: int, seconds: float, seed: int
) -> Iterator[Outcome]:
    """Kills a command at moments within ``seconds`` and yields what it left each time."""
    numbers = random.Random(seed)
    for i in range(kills):
        output.unlink(missing_ok=True)
        if i % 2:
            output.write_bytes(OLD)
        before, moment = digest(output), numbers.uniform(0, seconds)
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
        after, left = digest(output), leftovers(output)
        run(command)
        killed = process.returncode < 0
        yield Outcome(moment, killed, before, after, left, digest(output), leftovers(output))


def leftovers(output: Path) -> tuple[int, ...]:
    """Sizes of the temporary files beside an output."""
    return tuple(path.stat().st_size for path in output.parent.glob(f".*{SUFFIX}"))


def main() -> None:
    """Runs the conversions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(CONFIGS), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the true shape has")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--method", choices=list(METHODS), default="nearest")
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write, by default the system's /tmp")
    parser.add_argument("--output", type=Path, help="a file of results")
    options = parser.parse_args()
    config = CONFIGS[options.size]
    config = replace(config, layers=options.layers or config.layers)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source, output = Path(name) / "checkpoint", Path(name) / "model.qedge"
        source.mkdir()
        write_checkpoint(source, config, None)
        command = convert_command(
            source, output, "--method", options.method, "--threads", str(options.threads)
        )
        begin = time.monotonic()
        run(command)
        seconds, undisturbed = time.monotonic() - begin, digest(output)
        found: Counter[str] = Counter()
        for outcome in kill_at_random(command, output, options.kills, seconds, options.seed):
            sound = outcome.is_sound(undisturbed)
            kind = "the whole new file" if outcome.after == undisturbed else "the old file"
            found[(kind if outcome.after else "no file") if sound else "something else"] += 1
            print(f"{outcome.moment:.2f} s", json.dumps(outcome), file=sys.stderr, flush=True)
    record = {
        "size": options.size,
        "layers": config.layers,
        "method": options.method,
        "kills": options.kills,
        "seed": options.seed,
        "found": dict(found),
    }
    print(json.dumps(record, indent=1))
    if options.output:
        merge_table(options.output, "kills", [record], ("size", "layers", "method"))
    sys.exit("something else" in found)


if __name__ == "__main__":
    main()
