"""What a bug report needs of a machine, and nothing that says whose machine it is.

Two nets: facts are taken one by one, never whole files or whole environments; then every text is
searched for paths and for the names of the user, the home folder and the host.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_edge import __version__
from qwen_edge.host.instruction_set import listed_features
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.host.place import Place, read_text
from qwen_edge.session.diagnosis import Diagnosis, Finding
from qwen_edge.session.known_models import KNOWN_MODELS
from qwen_edge.session.setting_table import SETTINGS
from qwen_edge.session.settings import Explained

_PACKAGES = (
    "typer", "click", "jinja2", "psutil", "numpy", "torch", "transformers", "tokenizers",
    "safetensors", "bitsandbytes",
)  # fmt: skip
# What Android denies differs by version and vendor; much of what goes wrong follows from it.
_PROBED = (
    "cpuinfo", "meminfo", "stat", "loadavg", "uptime", "vmstat", "version", "self/status",
    "self/mountinfo", "self/smaps_rollup", "sys/kernel/osrelease",
)  # fmt: skip
_PATH_REST = r"[^\s'\"`,;:()<>|]*"
_PATH = re.compile(rf"(?<![\w.<])/(?!proc\b|sys\b){_PATH_REST}")
_FRAME = re.compile(r'File "[^"]*?(qwen_edge/[\w/]+\.py)", line (\d+), in (\w+)')
_KIND = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?::|$)")
# Names of users and hosts that are nobody's.
_COMMON = frozenset({"root", "user", "pi", "android", "termux", "localhost"})
# Values of findings that this program computes; all others may be what a user wrote.
_OWN_VALUES = frozenset(
    {
        "allowed", "available", "cap", "context", "engine", "longest", "names", "needed", "now",
        "origin", "reason", "reserve", "seconds", "size", "used", "version",
    }
)  # fmt: skip


def bug_report(
    result: Diagnosis,
    crash_log: str | None = None,
    environ: Mapping[str, str] | None = None,
    place: Place | None = None,
) -> dict[str, Any]:
    """Everything that a bug report needs, in plain types. Sizes in bytes.

    Args:
        result: the diagnosis.
        crash_log: what the last unexpected failure left, if there was one; only its kind and the
            places in this program are taken, since its message may quote a prompt.
        environ: the environment variables; values are not reported.
        place: where the device's facts come from.
    """
    environ = os.environ if environ is None else environ
    place = place or Place()
    runtime = result.runtime
    report = {
        "format": 1,
        "version": __version__,
        "python": _python(),
        "packages": _versions(_PACKAGES),
        "device": {**result.device.system._asdict(), "machine": result.device.machine},
        "memory": result.device.memory._asdict(),
        "process": _process(place),
        "readable": {name: read_text(place.proc / name, 1) is not None for name in _PROBED},
        "processor": _processor(result, place),
        "kernels": vars(result.kernels) if result.kernels else None,
        "compiler": result.compiler is not None,
        "models_storage": result.device.storage._asdict(),
        "model": _model(result),
        "computed_prompts": result.prompts._asdict() if result.prompts else None,
        "termux": _termux(result),
        "battery": result.battery._asdict() if result.battery else None,
        "configuration": vars(runtime) if runtime else None,
        "settings": [_setting(line) for line in result.settings],
        "variables": sorted(name for name in environ if name in _our_variables()),
        "why": [str(reason) for reason in result.why],
        "predicted_peak": {
            "short": result.short_peak,
            "full": runtime.predicted_peak if runtime else None,
        },
        "allowed": result.allowed,
        "findings": [_finding(found, result) for found in result.findings],
        "last_failure": None if crash_log is None else _failure(crash_log),
    }
    cleaned: dict[str, Any] = _cleaned(report, private_words(environ))
    return cleaned


def private_words(environ: Mapping[str, str]) -> list[str]:
    """Names that tell whose machine it is, the longest first."""
    import pwd

    words = {environ.get(name) for name in ("HOME", "USER", "LOGNAME", "USERNAME", "HOSTNAME")}
    words |= {os.uname().nodename, os.path.expanduser("~")}
    with contextlib.suppress(KeyError, OSError):
        entry = pwd.getpwuid(os.getuid())
        words |= {entry.pw_name, entry.pw_dir, *entry.pw_gecos.split(",")}
    words |= {os.path.realpath(word) for word in words if word and os.path.isabs(word)}
    kept = (word for word in words if word and word != "/" and word.lower() not in _COMMON)
    return sorted(kept, key=len, reverse=True)


def _cleaned(value: Any, private: Iterable[str]) -> Any:
    """Plain types, without paths and private words; the keys are this program's own."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _cleaned(inner, private) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(inner, private) for inner in value]
    if isinstance(value, Path):
        return "<path>"
    text = str(value)
    for word in private:
        # A home folder may have blanks in it, which _PATH takes for its end.
        path = word.startswith("/")
        name = re.escape(word) + (_PATH_REST if path else r"(?!\w)")
        text = re.sub(rf"(?<!\w){name}", "<path>" if path else "<private>", text, flags=re.I)
    return _PATH.sub("<path>", text)


def _python() -> dict[str, object]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": sys.platform,
        "wheels": sysconfig.get_platform(),
        "libc": " ".join(platform.libc_ver()),
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _process(place: Place) -> dict[str, object]:
    """Address space is told because some allocators take gigabytes of it before any code runs."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    endless = resource.RLIM_INFINITY
    return {
        **own_memory(place.proc)._asdict(),
        "address_space_limit": None if soft == endless else soft,
        "address_space_hard_limit": None if hard == endless else hard,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
    }


def _processor(result: Diagnosis, place: Place) -> dict[str, object]:
    device = result.device
    return {
        "name": device.processor_name,
        "clusters": [cluster._asdict() for cluster in device.processor.clusters],
        "cores": [core._asdict() for core in device.cores],
        "features": " ".join(sorted(listed_features(place))),
        "expected_kernels": device.kernels,
    }


def _model(result: Diagnosis) -> dict[str, object] | None:
    if result.model is None:
        return None
    facts = result.model.facts
    return {
        "kind": result.model.found.kind,
        "name": facts.name if facts else None,
        "bits": facts.bits if facts else None,
        "bytes": facts.weight_bytes if facts else None,
        "shape": vars(facts.config) if facts else None,
        "storage": result.model.storage._asdict(),
        "engine": result.model.choice.name,
    }


def _termux(result: Diagnosis) -> dict[str, object] | None:
    facts = result.termux
    if facts is None:
        return None
    return {
        "api": facts.api,
        "abilities": facts.abilities,
        "wake_lock_holders": len(facts.wake_lock.holders),
        "wake_locks_left_behind": facts.wake_lock.left_behind,
    }


def _our_variables() -> set[str]:
    return {known.variable for known in SETTINGS.values()} | {"QWEN_EDGE_ISA", "QWEN_EDGE_HOME"}


def _takes_any_text(key: str) -> bool:
    """Whether a setting's value may be whatever the user wrote."""
    try:
        SETTINGS[key].parse("some words")
    except (ValueError, OverflowError):
        return False
    return True


def _setting(line: Explained) -> dict[str, str]:
    hidden = _takes_any_text(line.key) and line.origin.split()[0] in ("flag", "environment", "file")
    origin = line.origin if not line.origin.startswith("file ") else "file"
    return {
        "key": line.key,
        "value": "<text>" if hidden else line.value,
        "origin": origin,
    }


def _finding(found: Finding, result: Diagnosis) -> dict[str, str]:
    """The sentence with its numbers; what a user may have written becomes ``<text>``."""
    facts = result.model.facts if result.model else None
    own = {*KNOWN_MODELS, *SETTINGS, *_our_variables(), facts.name if facts else ""}
    values = {
        name: value
        if isinstance(value, int | float) or name in _OWN_VALUES or value in own
        else "<text>"
        for name, value in found.values.items()
    }
    return {
        "severity": found.severity,
        "sentence": found.sentence.format(**values) if values else found.sentence,
        "hint": found.hint.format(**values) if values else found.hint,
    }


def _failure(log: str) -> dict[str, object]:
    """Kind of the last failure and where in this program it was, without its message."""
    lines = log.splitlines()
    kinds = [match.group(1) for line in lines if (match := _KIND.match(line))]
    frames = [f"{path}:{line} {name}" for path, line, name in _FRAME.findall(log)]
    return {"kind": kinds[-1] if kinds else None, "frames": frames[-20:]}
