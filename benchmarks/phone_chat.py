"""A chat of 30 turns with as little memory as a phone leaves: does it grow, fail, or lose a turn?

    python -m benchmarks.phone_chat MODEL.qedge [--turns 30] [--mib 700] [--context 4096]
                                                [--runs group cap hot] [--output FILE.json]

`qwen-edge chat --stats` is started as a user's process and gets a question when it has answered
the one before. The questions are long, so that the context is full after three of them and its
beginning is dropped again and again. The runs:

- group: in a memory control group of so many MiB (Linux, root), which the kernel enforces: beyond
  it, the process is killed. The model is a copy that nobody holds in memory yet, so that its pages
  count, too.
- cap: with `--memory-cap` of as much: the program limits its own address space to what it has at
  its start plus that, as it does on phones.
- hot: as group, and a make-believe `termux-battery-status` tells of a battery that gets hot and
  cools down again.

After each turn the statistics that the chat told of it are kept, with the process's resident
memory and page faults. Memory swings with the tokens in the context, so the most of the first five
turns is compared with the most of the others. Exits with 1 if that grew by more than --growth
percent, the chat ended otherwise than well, a turn had no answer, or the hot phone was not gone
easy on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

from qwen_edge.host.place import read_kilobyte_fields
from qwen_edge.quant.methods import calibration_text
from tests.session.hot_phone import HotPhone, hurried

MIB = 1 << 20
SETTLED = 5
# Characters of a question, about 900 tokens, and tokens of an answer.
QUESTION, ANSWER = 3600, 128
PATIENCE = 120.0
RUNS = ("group", "cap", "hot")
PROGRAM = (sys.executable, "-m", "qwen_edge")
# By what the governor's times are shorter than usual.
HURRY = 20
_GROUPS = Path("/sys/fs/cgroup")
_PROMPT = re.compile(r"prompt: (\d+) tokens \((\d+) cached\), ([\d.]+) s, ([\d.]+) tokens/s")
_ANSWER = re.compile(
    r"answer: (\d+) tokens, first after ([\d.]+) s, then ([\d.]+) tokens/s \((\w+)\)"
)
_CUT = re.compile(r"The answer was cut off after \d+ tokens")
_DROPPED = re.compile(r"the oldest (\d+) messages are left out")
_LAST = "peak memory:"
# What is said of a hot phone, from the first step to the last.
EASED = (
    "threads from here on", "a pause until it has cooled", "the answer goes on",
    "everything as before",
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """What a chat told of a turn, and what its process held after it.

    Attributes:
        prompt, cached: tokens of the prompt, and of these those that were computed before.
        prefill_seconds, prefill_speed: of reading the rest; tokens a second.
        tokens: of the answer.
        first_seconds, speed: to its first token, and tokens a second after that.
        reason: why it ended.
        dropped: how many messages the model lost sight of to make room.
        resident, anonymous, file: bytes; file is mapped weights for the most part.
        virtual: bytes of address space.
        minor_faults, major_faults: page faults since the turn before; major ones read the disk.
        threads: of the process.
        remarks: what else the chat said.
    """

    prompt: int
    cached: int
    prefill_seconds: float
    prefill_speed: float
    tokens: int
    first_seconds: float
    speed: float
    reason: str
    dropped: int
    resident: int
    anonymous: int
    file: int
    virtual: int
    minor_faults: int
    major_faults: int
    threads: int
    remarks: tuple[str, ...]


class TalkError(Exception):
    """The chat ended, or said nothing for long; the message has what it said last."""


class Talk:
    """A chat over pipes; use it as a context manager.

    Args:
        command: the command line, ``--stats`` among it.
        environment: its environment variables.
        before: called in the new process before the program begins.
        heard: called with each line of standard error, from a thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        before: Callable[[], None] | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            preexec_fn=before,
        )
        self._heard = heard
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._faults = (0, 0)
        self.answered = bytearray()
        for work in (self._listen, self._read):
            threading.Thread(target=work, daemon=True).start()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, question: str) -> Turn:
        """Asks a question, a line, and waits for the end of the answer.

        Raises:
            TalkError: there is none.
        """
        with contextlib.suppress(BrokenPipeError):
            self._input.write(question.encode() + b"\n")
            self._input.flush()
        said: list[str] = []
        while not (said and said[-1].startswith(_LAST)):
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                raise TalkError(f"nothing for {PATIENCE:.0f} s after {said}") from None
            if line is None:
                raise TalkError(f"the chat ended with {self._process.wait()}: {said}")
            said.append(line)
        return self._turn(said)

    def leave(self) -> int:
        """Ends the chat; returns its exit code."""
        self._input.close()
        return self._process.wait(PATIENCE)

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            if self._heard is not None:
                self._heard(text)
            self._lines.put(text)
        self._lines.put(None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.answered += line

    def _turn(self, said: Sequence[str]) -> Turn:
        text = "\n".join(said)
        prompt, answer, dropped = (each.search(text) for each in (_PROMPT, _ANSWER, _DROPPED))
        if prompt is None or answer is None:
            raise TalkError(f"no statistics in {said}")
        folder = Path("/proc") / str(self.pid)
        held = read_kilobyte_fields(folder / "status")
        facts = (folder / "stat").read_text().rpartition(")")[2].split()
        # Fields 10, 12 and 20 of proc(5); the split left out two.
        faults, before = (int(facts[7]), int(facts[9])), self._faults
        self._faults = faults
        known = (_PROMPT, _ANSWER, _DROPPED, _CUT)
        return Turn(
            int(prompt[1]), int(prompt[2]), float(prompt[3]), float(prompt[4]),
            int(answer[1]), float(answer[2]), float(answer[3]), answer[4],
            dropped=int(dropped[1]) if dropped else 0,
            resident=held["VmRSS"],
            anonymous=held["RssAnon"],
            file=held["RssFile"],
            virtual=held["VmSize"],
            minor_faults=faults[0] - before[0],
            major_faults=faults[1] - before[1],
            threads=int(facts[17]),
            remarks=tuple(
                line for line in said[:-1] if not any(each.search(line) for each in known)
            ),
        )  # fmt: skip


def chat_command(model: Path, *options: str, program: Sequence[str] = PROGRAM) -> list[str]:
    """The command line of a chat with statistics and without thoughts."""
    settings = ["--no-think", "--seed", "7", "-n", str(ANSWER), "--stats"]
    return [*program, "chat", "-m", str(model), *settings, *options]


def questions(turns: int, length: int = QUESTION) -> list[str]:
    """Questions of so many characters that differ in their number alone, to take equal room."""
    text = " ".join(calibration_text().split())[:length]
    return [f"{number}: {text}" for number in range(1, turns + 1)]


def growth(turns: Sequence[Turn]) -> float:
    """By what share the most that was resident grew after the fifth turn."""
    before, after = turns[:SETTLED], turns[SETTLED:]
    return max(turn.resident for turn in after) / max(turn.resident for turn in before) - 1


@contextlib.contextmanager
def memory_group(size: int) -> Iterator[Path]:
    """A memory control group of version 1 with a limit, swap included; the path of its folder.

    Raises:
        OSError: there is none to be had: no such file system, or not for this user.
    """
    folder = _GROUPS / "memory" / f"phone-chat-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(size))
        with contextlib.suppress(OSError):
            (folder / "memory.memsw.limit_in_bytes").write_text(str(size))
        yield folder
    finally:
        end = time.monotonic() + 5
        while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        folder.rmdir()


def unread_copy(model: Path, folder: Path) -> Path:
    """A copy of a file that is not in the page cache."""
    copy = folder / model.name
    shutil.copyfile(model, copy)
    descriptor = os.open(copy, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return copy


def talk(
    command: Sequence[str],
    asked: Sequence[str],
    environment: Mapping[str, str],
    group: Path | None = None,
    weather: Weather | None = None,
) -> dict[str, Any]:
    """One run: its turns, how it ended, and what the group counted.

    Args:
        command: starts the chat.
        asked: the questions.
        environment: of the chat.
        group: the control group to put it in.
        weather: of the phone that it runs on.
    """

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    turns: list[Turn] = []
    with Talk(command, environment, enter, weather.heard if weather else None) as chat:
        for number, question in enumerate(asked, 1):
            if weather is not None:
                weather.before(number)
            turns.append(chat.ask(question))
            print(f"{number:3}: {json.dumps(asdict(turns[-1]))}", flush=True)
        limit = resource.prlimit(chat.pid, resource.RLIMIT_AS)[0]
        record: dict[str, Any] = {"exit_code": chat.leave()}
    if limit != resource.RLIM_INFINITY:
        record["address_space_limit"] = limit
    if group is not None:
        record["group"] = {
            name: int((group / f"memory.{name}").read_text())
            for name in ("limit_in_bytes", "max_usage_in_bytes", "failcnt")
        }
    return record | {"growth": growth(turns), "turns": [asdict(turn) for turn in turns]}


def remarks_of(record: Mapping[str, Any]) -> list[tuple[int, str]]:
    """What the governor said in a run, with the number of the turn."""
    return [
        (number, remark)
        for number, turn in enumerate(record["turns"], 1)
        for remark in turn["remarks"]
        # The statistics repeat it, with the time.
        if any(words in remark for words in EASED) and not remark.startswith("after ")
    ]


def faults_of(record: Mapping[str, Any], most_growth: float, *, hot: bool = False) -> list[str]:
    """What is wrong with a run; a hot phone must have been gone easy on and found well again."""
    found = []
    said = " ".join(remark for _, remark in remarks_of(record))
    if hot and not all(words in said for words in EASED):
        found.append(f"of a hot phone it said: {said}")
    if record["exit_code"]:
        found.append(f"it ended with {record['exit_code']}")
    if record["growth"] > most_growth:
        found.append(f"memory grew by {record['growth']:.1%}")
    silent = [number for number, turn in enumerate(record["turns"], 1) if not turn["tokens"]]
    if silent:
        found.append(f"no answer in turns {silent}")
    if not any(turn["dropped"] for turn in record["turns"]):
        found.append("the context was never full")
    return found


class Weather:
    """Makes a phone warm, then so hot that answers wait, and cools it down again.

    Args:
        phone: whose battery tells the temperature.
        turns: of the chat.
    """

    def __init__(self, phone: HotPhone, turns: int) -> None:
        self._phone = phone
        self._turns = turns
        self._paused = False
        # What the chat says is heard in a thread of its own, at times just when a turn begins.
        self._changing = threading.Lock()

    def before(self, turn: int) -> None:
        """Sets the temperature for a turn, from 1 on; call it before its question."""
        share = turn / self._turns
        if share < 1 / 4:
            return
        with self._changing:
            if self._paused:
                self._phone.battery(33.0)
            else:
                self._phone.battery(43.5 if share < 1 / 2 else 48.0)

    def heard(self, line: str) -> None:
        """Cools the phone down while an answer waits; call it for each line the chat says."""
        if EASED[1] in line:
            with self._changing:
                self._paused = True
                self._phone.battery(40.0)


def measure(run: str, model: Path, turns: int, mib: int, context: int) -> dict[str, Any]:
    """One of ``RUNS``.

    Raises:
        OSError: there is no control group to be had.
        TalkError: the chat ended, or said nothing for long.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("QWEN_EDGE_")
        }
        environment |= {"QWEN_EDGE_HOME": str(folder / "home"), "LC_ALL": "C.UTF-8"}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        options, program = ["--context", str(context)], PROGRAM
        group, weather = None, None
        if run == "cap":
            options += ["--memory-cap", f"{mib}MiB"]
        else:
            group = stack.enter_context(memory_group(mib * MIB))
        if run == "hot":
            phone = HotPhone(folder / "phone")
            environment |= phone.environ
            program, weather = hurried(HURRY), Weather(phone, turns)
        command = chat_command(unread_copy(model, folder), *options, program=program)
        record = talk(command, questions(turns), environment, group, weather)
        return {"options": options, **record}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--mib", type=int, default=700)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    parser.add_argument("--growth", type=float, default=2, help="percent that are allowed")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    record: dict[str, Any] = {}
    if arguments.output and arguments.output.exists():
        record = json.loads(arguments.output.read_text(encoding="utf-8"))
    record |= {"date": date.today().isoformat(), "mib": arguments.mib}
    bad = False
    for run in arguments.runs:
        found = measure(run, arguments.model, arguments.turns, arguments.mib, arguments.context)
        faults = faults_of(found, arguments.growth / 100, hot=run == "hot")
        found["verdict"] = "; ".join(faults) or "every turn answered"
        record.setdefault("runs", {})[run] = found
        print(f"{run}: {found['growth']:+.2%}, {found['verdict']}", flush=True)
        bad = bad or bool(faults)
        if arguments.output:
            text = json.dumps(record, indent=1) + "\n"
            arguments.output.write_text(text, encoding="utf-8")
    sys.exit(bad)


if __name__ == "__main__":
    main()
