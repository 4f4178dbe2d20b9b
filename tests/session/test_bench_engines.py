"""Engines side by side: what is measured, what is left out, and that nothing stays behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.packages import folder_bytes, installed_bytes, required
from qwen_edge.model.packed import open_model
from qwen_edge.session import bench_checkpoint
from qwen_edge.session.bench_checkpoint import temporary_checkpoint
from qwen_edge.session.bench_contenders import CONTENDERS, FIRST, Contender
from qwen_edge.session.bench_engines import EnginesBench
from qwen_edge.session.bench_ratio import engines_of, ratio_to_first
from qwen_edge.session.bench_result import Measure, Part, Remark, Report
from qwen_edge.session.engine_choice import NATIVE, EngineChoice
from qwen_edge.session.engine_process import EngineFailed, EngineProcess
from qwen_edge.session.engine_speeds import read_speeds
from qwen_edge.session.footprint import bits_of
from qwen_edge.session.models import demo_path
from tests.cli.program import environment

# The same engine under two names: what is measured differs in nothing but the name.
TWICE = (FIRST, Contender("again", EngineChoice(NATIVE)))
Start = Callable[[Callable[[], None]], EngineProcess]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("QWEN_EDGE_")]:
        if name != "QWEN_EDGE_LIBRARY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QWEN_EDGE_HOME", str(tmp_path / "home"))


class Watcher:
    """Notes what begins; ``stop_at`` breaks the run off there."""

    def __init__(self, stop_at: str = "") -> None:
        self.planned = 0.0
        self.begun: list[Part] = []
        self._stop_at = stop_at

    def begin(self, part: Part) -> None:
        self.begun.append(part)
        if part.key == self._stop_at:
            raise KeyboardInterrupt

    def poll(self) -> None:
        pass


class Kept:
    """Starts processes and keeps them to be looked at."""

    def __init__(self, kind: type[EngineProcess] = EngineProcess) -> None:
        self.processes: list[EngineProcess] = []
        self.most_alive = 0
        self._kind = kind

    def __call__(self, poll: Callable[[], None]) -> EngineProcess:
        process = self._kind(poll)
        self.processes.append(process)
        self.most_alive = max(self.most_alive, sum(is_alive(one.pid) for one in self.processes))
        return process


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What has ended and was not asked for yet does nothing any more.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def measured(
    contenders: Sequence[Contender] = TWICE,
    start: Start = EngineProcess,
    watcher: Watcher | None = None,
    budget: float = 6,
    **flags: object,
) -> Report:
    bench = EnginesBench(
        {"model": "demo", **flags}, budget, watcher or Watcher(), quick=True,
        contenders=contenders, start=start,
    )  # fmt: skip
    try:
        bench.run()
    except KeyboardInterrupt:
        return bench.report(complete=False)
    return bench.report(complete=True)


def texts(report: Report) -> list[str]:
    return [str(remark) for remark in report.remarks]


def test_engines_take_turns_and_leave_nothing_behind() -> None:
    kept, watcher = Kept(), Watcher()
    report = measured(start=kept, watcher=watcher)
    assert (report.kind, report.settings["engine"], texts(report)) == ("engines", "all", [])
    assert engines_of(report) == ["native", "again"]
    for engine in ("native", "again"):
        keys = {one.key for one in report.measures if one.engine == engine}
        assert keys == {
            "ready", "first-token-ever", "first-token-cold", "prefill", "decode", "process-peak",
            "packages",
        }  # fmt: skip
        ready, first = (report.find(key, None, engine) for key in ("ready", "first-token-cold"))
        assert ready is not None
        assert first is not None
        assert all(a < b for a, b in zip(ready.samples, first.samples, strict=True))
    assert report.find("bandwidth") is not None
    decoding = [part.engine for part in watcher.begun if part.key == "decode"]
    # An engine may have one turn more in the end.
    assert decoding[:6] == ["native", "again"] * 3
    assert ratio_to_first(report, "native") == 1
    assert ratio_to_first(report, "again") == pytest.approx(1, abs=0.9)
    assert kept.most_alive == 2
    assert not any(is_alive(one.pid) for one in kept.processes)
    assert watcher.planned > 0
    # What --engine auto goes by from now on; an engine counts once.
    with open_model(demo_path()) as model:
        speeds = read_speeds(model.config, bits_of(model))
    native = report.find("decode", 0, "native")
    assert native is not None
    assert speeds == {"native": pytest.approx(native.median)}


def test_breaking_off_ends_the_processes_and_keeps_what_was_measured() -> None:
    kept = Kept()
    report = measured(start=kept, watcher=Watcher(stop_at="prefill"))
    assert not report.complete
    assert report.find("decode", 0, "native") is not None
    assert report.find("decode", 0, "again") is None
    assert kept.processes
    assert not any(is_alive(one.pid) for one in kept.processes)


class Crashing(EngineProcess):
    """Is killed while it measures a prompt, as by a kernel short of memory."""

    def ask(self, name: str, until: float, **arguments: object) -> Any:
        if name == "prefill":
            os.kill(self.pid, signal.SIGKILL)
        return super().ask(name, until, **arguments)


def test_a_crash_leaves_the_engine_out() -> None:
    whole = Kept()

    def start(poll: Callable[[], None]) -> EngineProcess:
        # The second of them.
        kind = Crashing if len(whole.processes) == 1 else EngineProcess
        process = kind(poll)
        whole.processes.append(process)
        return process

    report = measured(start=start)
    assert report.complete
    assert engines_of(report) == ["native"]
    assert texts(report) == ["again is left out: its process was ended by signal 9."]
    assert not any(is_alive(one.pid) for one in whole.processes)


class Greedy(EngineProcess):
    """Does not fit into memory beside another one."""

    alive = 0

    def __init__(self, poll: Callable[[], None]) -> None:
        super().__init__(poll)
        type(self).alive += 1

    def ask(self, name: str, until: float, **arguments: object) -> Any:
        if type(self).alive > 1:
            raise EngineFailed(Remark("it does not fit."), memory=True)
        return super().ask(name, until, **arguments)

    def close(self) -> None:
        if is_alive(self.pid):
            type(self).alive -= 1
        super().close()


def test_engines_that_do_not_fit_together_run_one_at_a_time() -> None:
    report = measured(start=Kept(Greedy), budget=10)
    assert texts(report) == []
    assert engines_of(report) == ["native", "again"]
    ready = report.find("ready", None, "again")
    decode = report.find("decode", 0, "again")
    assert ready is not None
    assert decode is not None
    # Started for each turn.
    assert len(ready.samples) >= len(decode.samples)
    assert Greedy.alive == 0


def test_what_does_not_fit_at_all_is_left_out_with_its_numbers() -> None:
    report = measured(**{"memory-cap": "40M"})
    assert engines_of(report) == ["native", "again"]
    library = (FIRST, next(one for one in CONTENDERS if one.name == "torch eager"))
    if importlib.util.find_spec("torch") is not None:
        report = measured(library, **{"memory-cap": "40M"})
        assert engines_of(report) == ["native"]
        assert "torch eager is left out: " in texts(report)[0]
        assert "MiB" in texts(report)[0]


def test_engines_that_are_not_installed_are_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = measured(CONTENDERS)
    assert engines_of(report) == ["native"]
    left_out = texts(report)
    assert len(left_out) == len(CONTENDERS) - 1
    assert left_out[0] == (
        "torch compiled is left out: The engine torch needs the package torch, which is not "
        "installed."
    )


def test_without_disk_space_transformers_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench_checkpoint, "free_bytes", lambda path: 1 << 20)
    report = measured([one for one in CONTENDERS if "torch" not in one.name])
    assert engines_of(report) == ["native"]
    said = texts(report)
    assert said[0].startswith("transformers bf16 is left out: its weights take ")
    assert said[0].endswith(" on the disk, and 1.0 MiB are free.")


def test_an_answer_that_does_not_come_is_given_up() -> None:
    with EngineProcess(lambda: None) as process:
        process.ask("open", time.monotonic() + 60, flags={"model": str(demo_path())})
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(EngineFailed, match="it was not done after 0 s; --budget allows"):
            process.ask("first_token", time.monotonic() + 0.2)
    assert not is_alive(process.pid)


def test_errors_of_the_engine_are_values() -> None:
    with EngineProcess(lambda: None) as process:
        with pytest.raises(EngineFailed) as caught:
            process.ask("open", time.monotonic() + 60, flags={"model": "/nowhere/model.qedge"})
        assert "/nowhere/model.qedge" in str(caught.value)
        assert not caught.value.memory


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_process_that_waits_uses_no_processor() -> None:
    with EngineProcess(lambda: None) as process:
        process.ask("open", time.monotonic() + 60, flags={"model": str(demo_path())})
        process.ask("decode", time.monotonic() + 60, steps=50)
        time.sleep(0.2)
        before = processor_ticks(process.pid)
        time.sleep(1)
        assert processor_ticks(process.pid) - before <= 1


def ended(pid: int) -> bool:
    end = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(pid)


def test_a_killed_parent_takes_process_and_checkpoint_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from qwen_edge.model.packed import open_model\n"
        "from qwen_edge.session.bench_checkpoint import temporary_checkpoint\n"
        "from qwen_edge.session.engine_process import EngineProcess\n"
        "model = Path(sys.argv[1])\n"
        "process = EngineProcess(lambda: None)\n"
        "process.ask('open', time.monotonic() + 60, flags={'model': str(model)})\n"
        "with open_model(model) as opened, temporary_checkpoint(opened, Path(sys.argv[2])):\n"
        "    print(process.pid, flush=True)\n"
        "    process.ask('decode', time.monotonic() + 600, steps=10**9)\n"
    )
    # Slow kernels, so that it computes for a while.
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(demo_path()), str(tmp_path / "checkpoints")],
        stdout=subprocess.PIPE,
        env=environment(tmp_path / "home", QWEN_EDGE_ISA="scalar"),
        text=True,
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = int(parent.stdout.readline())
        assert list((tmp_path / "checkpoints").glob("*/demo/model.safetensors"))
        parent.kill()
    assert ended(child)
    end = time.monotonic() + 20
    while list((tmp_path / "checkpoints").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_checkpoint_is_there_for_the_run_alone(tmp_path: Path) -> None:
    with open_model(demo_path()) as model:
        with temporary_checkpoint(model, tmp_path / "a") as folder:
            assert (folder / "model.safetensors").is_file()
        assert not list((tmp_path / "a").iterdir())

        def stop(done: int, total: int, name: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), temporary_checkpoint(model, tmp_path / "b", stop):
            pass
        assert not list((tmp_path / "b").iterdir())
        (tmp_path / "file").touch()
        with pytest.raises(QwenEdgeError), temporary_checkpoint(model, tmp_path / "file"):
            pass


def test_packages_count_with_all_that_they_need(tmp_path: Path) -> None:
    assert {"pytest", "pluggy"} <= required(["pytest"])
    assert installed_bytes(["pytest"]) > installed_bytes(["pluggy"]) > 10_000
    assert installed_bytes(["no-such-package-at-all"]) == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"12345")
    assert folder_bytes(tmp_path) == 5


def test_ratios_are_those_of_the_turns_that_both_had() -> None:
    measures = [
        Measure("decode", 0, (100.0, 200.0, 400.0), "native"),
        Measure("decode", 0, (50.0, 50.0), "other"),
    ]
    report = Report("engines", "", "", {}, {}, {}, measures)
    assert ratio_to_first(report, "other") == pytest.approx((0.5 + 0.25) / 2)
    assert ratio_to_first(report, "none") is None


def test_the_libraries_compute_the_same_model_in_their_processes() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    names = ("native", "torch eager", "transformers bf16")
    kept = Kept()
    report = measured([one for one in CONTENDERS if one.name in names], kept, budget=60)
    assert (tuple(engines_of(report)), texts(report)) == (names, [])
    for name in names[1:]:
        slower = ratio_to_first(report, name)
        assert slower is not None
        assert slower > 0
        packages, own = (report.find("packages", None, one) for one in (name, "native"))
        assert packages is not None
        assert own is not None
        assert packages.median > 10 * own.median
    assert not any(is_alive(one.pid) for one in kept.processes)
    assert not list(Path(os.environ["QWEN_EDGE_HOME"]).rglob("*.safetensors"))
