"""What a bug report holds, and what it must not."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.place import Place
from qwen_edge.session.bug_report import bug_report, private_words
from qwen_edge.session.diagnosis import Finding, diagnose
from tests.host.recorded import recorded, recorded_names

SECRETS = ("zaphod", "beeblebrox-laptop", "towel", "10000000c0ffee42")


def private_environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "QWEN_EDGE_HOME": str(home / "qe"),
        "USER": "zaphod",
        "LOGNAME": "zaphod",
        "HOSTNAME": "beeblebrox-laptop",
        "HF_TOKEN": "towel",
    }


def texts(value: object) -> Iterator[str]:
    """All texts of a report but its keys."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def report_of(home: Path, place: Place | None = None, **flags: object) -> dict[str, Any]:
    environ = private_environment(home)
    report = bug_report(diagnose(flags, environ, place), None, environ, place)
    text = json.dumps(report, allow_nan=False)
    for secret in (*SECRETS, str(home), str(Path.home()) + "/"):
        assert secret not in text
    host = re.compile(rf"(?<!\w){re.escape(os.uname().nodename)}(?!\w)")
    assert not any(map(host.search, texts(report)))
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@pytest.mark.parametrize("name", recorded_names())
def test_recorded_devices_are_reported_with_their_facts(name: str, tmp_path: Path) -> None:
    device = recorded(name)
    report = report_of(tmp_path / "zaphod" / "home", device.place, model="demo")
    assert report["memory"]["total"] == device.expected["total"]
    assert report["device"]["device"] == device.expected["device"]
    assert report["device"]["android_version"] == device.expected["android_version"]
    assert report["processor"]["name"] == device.expected["processor_name"]
    assert report["processor"]["expected_kernels"] == device.expected["kernels"]
    assert len(report["processor"]["cores"]) == device.expected["cores"]
    assert report["readable"]["cpuinfo"] == (device.place.proc / "cpuinfo").exists()
    assert report["model"]["shape"]["layers"] > 0
    assert report["configuration"]["predicted_peak"] <= report["allowed"]


def test_texts_of_the_user_are_left_out(tmp_path: Path) -> None:
    home = tmp_path / "zaphod"
    folder = home / "qe"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('lora = "my towel"\nkv = "zaphod towel"\n')
    report = report_of(home, model="where is my towel, zaphod")
    said = [finding["sentence"] for finding in report["findings"]]
    assert any("is no value for kv" in sentence for sentence in said)
    assert any("<text>" in sentence for sentence in said)
    (folder / "config.toml").write_text('lora = "towel"\ncontext = 300\n')
    settings = {line["key"]: line for line in report_of(home)["settings"]}
    assert settings["lora"] == {"key": "lora", "value": "<text>", "origin": "file"}
    assert settings["context"] == {"key": "context", "value": "300", "origin": "file"}


def test_paths_are_left_out_of_findings(tmp_path: Path) -> None:
    for where in (tmp_path / "zaphod" / "towel.qedge", tmp_path / "my towel" / "m.qedge"):
        where.parent.mkdir(exist_ok=True)
        where.write_bytes(b"\xff" * 5000)
        report = report_of(tmp_path / "zaphod", model=str(where))
        assert [finding for finding in report["findings"] if finding["severity"] == "error"]


def test_reasons_of_the_system_lose_their_paths_and_names(tmp_path: Path) -> None:
    environ = private_environment(tmp_path / "zaphod")
    result = diagnose({"model": "demo"}, environ)
    reason = f"dlopen failed: {tmp_path}/zaphod/l.so (for Zaphod at beeblebrox-laptop), 9.5 GB/s"
    result.findings.append(Finding.of(QwenEdgeError("It does not load: {reason}.", reason=reason)))
    sentence = bug_report(result, None, environ)["findings"][-1]["sentence"]
    assert sentence == (
        "It does not load: dlopen failed: <path> (for <private> at <private>), 9.5 GB/s."
    )


def test_last_failure_has_its_kind_and_places_but_no_message(tmp_path: Path) -> None:
    environ = private_environment(tmp_path)
    log = (
        "qwen-edge 0.1.0, 2026-01-01 00:00:00\n"
        "Traceback (most recent call last):\n"
        '  File "/home/zaphod/lib/qwen_edge/cli/run.py", line 12, in main\n'
        "    answer('where is my towel')\n"
        '  File "/home/zaphod/other/thing.py", line 3, in towel\n'
        "ValueError: bad prompt: where is my\ntowel\n"
    )
    failure = bug_report(diagnose({}, environ), log, environ)["last_failure"]
    assert failure == {"kind": "ValueError", "frames": ["qwen_edge/cli/run.py:12 main"]}


def test_private_words_are_those_of_this_user(tmp_path: Path) -> None:
    words = private_words(private_environment(tmp_path))
    assert {"zaphod", "beeblebrox-laptop", str(tmp_path)} <= set(words)
    name = pwd.getpwuid(os.getuid()).pw_name
    assert name in words or name in ("root", "user", "pi")
    # A path goes before the names within it.
    assert words == sorted(words, key=len, reverse=True)
