"""The diagnosis as people read it."""

from __future__ import annotations

import platform
import sys

from qwen_edge import __version__
from qwen_edge.cli.calibrate_view import stored_text
from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import explained_rows, finding, heading, named_values, paragraph
from qwen_edge.cli.terminal import out
from qwen_edge.host.processor import Cluster
from qwen_edge.host.sizes import format_size
from qwen_edge.native.instruction_sets import ISA_VARIABLE
from qwen_edge.session.diagnosis import SHORT_RUN, Diagnosis
from qwen_edge.session.engine_choice import NATIVE
from qwen_edge.session.termux_facts import TermuxFacts
from qwen_edge.session.torch_facts import TorchFacts


def show_diagnosis(result: Diagnosis) -> None:
    """Writes it to standard output."""
    named_values(_device_rows(result))
    heading("Program")
    named_values(_program_rows(result))
    heading("Configuration")
    _show_configuration(result)
    if result.findings:
        heading("Findings")
        for found in result.findings:
            finding(found.severity, found.sentence, found.hint, found.values)


def _size(size: int | None) -> str:
    return translate("unknown") if size is None else format_size(size)


def _say(template: str, **values: object) -> str:
    return localized(template, values)


def _device_rows(result: Diagnosis) -> list[tuple[str, str]]:
    device = result.device
    system, memory = device.system, device.memory
    name = platform.system()
    if system.android:
        name = f"Android {system.android_version or ''}".strip()
    parts = [system.device, name, system.kernel, device.machine]
    places = [place for place, here in (("Termux", system.termux), ("proot", system.proot)) if here]
    cores = ", ".join(_cluster(cluster) for cluster in device.processor.clusters)
    return [
        ("Device", ", ".join(part for part in (*parts, *places) if part)),
        (
            "Processor",
            f"{device.processor_name}: {cores}" if device.processor_name else cores,
        ),
        (
            "Memory",
            _say(
                "{total}, {available} available, {swap} of swap free",
                total=_size(memory.total),
                available=_size(memory.available),
                swap=_size(memory.swap_free),
            ),
        ),
        *_battery_row(result),
    ]


def _battery_row(result: Diagnosis) -> list[tuple[str, str]]:
    """What the governor sees of the battery; nothing where there is none."""
    battery = result.battery
    if battery is None:
        unknown = _say("not shown: only falling speed tells of heat")
        return [("Battery", unknown)] if result.device.system.android else []
    power = {
        True: _say("plugged in"),
        False: _say("not plugged in"),
        None: _say("charger unknown"),
    }
    parts = [
        "" if battery.temperature is None else f"{battery.temperature:.0f} °C",
        "" if battery.level is None else f"{battery.level:.0f} %",
        power[battery.plugged],
        {"termux-api": "Termux:API"}.get(battery.source, "/sys"),
    ]
    return [("Battery", ", ".join(part for part in parts if part))]


def _cluster(cluster: Cluster) -> str:
    kind = translate("big") if cluster.big else translate("little")
    clock = f" {cluster.max_khz / 1e6:.1f} GHz" if cluster.max_khz else ""
    name = f" {cluster.name}" if cluster.name else ""
    return f"{len(cluster.cores)} {kind}{name}{clock}"


def _program_rows(result: Diagnosis) -> list[tuple[str, str]]:
    if result.kernels is None:
        kernels = translate("the native library does not load")
    else:
        kernels = _say(
            "{in_use}; this processor runs {available}; {variable} forces one",
            in_use=result.kernels.in_use or translate("none"),
            available=", ".join(result.kernels.available),
            variable=ISA_VARIABLE,
        )
    none = translate("none")
    rows = [
        ("Version", f"qwen-edge {__version__}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("Kernels", kernels),
        ("Compiler", result.compiler or none),
        *_torch_rows(result.torch),
    ]
    return [
        *rows,
        *_termux_rows(result.termux),
        *_model_rows(result),
        *_calibrated_rows(result),
        _prompts_row(result),
    ]


def _termux_rows(facts: TermuxFacts | None) -> list[tuple[str, str]]:
    if facts is None:
        return []
    api = {
        "absent": _say("not installed (`pkg install termux-api`, and its app)"),
        "done": _say("answers"),
        "hangs": _say("does not answer"),
    }.get(facts.api, _say("fails"))
    lock = _say("not held")
    if facts.wake_lock.holders:
        numbers = ", ".join(map(str, facts.wake_lock.holders))
        lock = _say("held by process {numbers}", numbers=numbers)
    elif facts.wake_lock.left_behind:
        lock = _say("left behind by a program that was killed; it is released now")
    return [
        ("Termux:API", "; ".join([api, *map(translate, facts.abilities)])),
        ("Wake lock", lock),
    ]


def _calibrated_rows(result: Diagnosis) -> list[tuple[str, str]]:
    if result.model is None or result.model.choice.name != NATIVE:
        return []
    return [("Calibrated", stored_text(result.calibration))]


def _torch_rows(facts: TorchFacts | None) -> list[tuple[str, str]]:
    if facts is None or facts.version is None:
        rows = [("torch", _say("not installed (not needed)"))]
    else:
        values = {"version": facts.version, "compiler": facts.compiler, "seconds": facts.seconds}
        if facts.seconds is not None and facts.built:
            state = "{version}, loaded with its operators in {seconds:.1f} s"
        elif facts.seconds is not None:
            state = "{version}, loaded in {seconds:.1f} s; its operators do not load"
        elif facts.built:
            state = "{version}, its operators are built"
        elif facts.compiler is not None:
            state = "{version}, its operators are built on first use with {compiler}"
        else:
            state = "{version}, its operators cannot be built"
        rows = [("torch", _say(state, **values))]
    if facts is not None and facts.cache.size:
        size, folder = format_size(facts.cache.size), facts.cache.folder
        rows.append(
            (
                "Compiled",
                _say(
                    "{size} in {path}; `qwen-edge doctor --clear-cache` deletes it",
                    size=size,
                    path=folder,
                ),
            )
        )
    return rows


def _model_rows(result: Diagnosis) -> list[tuple[str, str]]:
    if result.model is None:
        return [("Model", translate("none"))]
    found, facts, storage = result.model.found, result.model.facts, result.model.storage
    described = str(found.path)
    if facts is not None:
        described = _say(
            "{name}, {bits} bits, {size}, {path}",
            name=facts.name,
            bits=facts.bits,
            size=_size(facts.weight_bytes),
            path=found.path,
        )
    place = _say(
        "{type}, {free} free", type=storage.type or translate("unknown"), free=_size(storage.free)
    )
    return [("Model", described), ("Storage", place)]


def _prompts_row(result: Diagnosis) -> tuple[str, str]:
    if result.prompts is None:
        return ("Prompts", translate("unknown"))
    place = _say(
        "{prompts} computed, {size} in {path}; `qwen-edge models clear-cache` deletes them",
        prompts=result.prompts.prompts,
        size=_size(result.prompts.size),
        path=result.prompts_folder,
    )
    return ("Prompts", place)


def _show_configuration(result: Diagnosis) -> None:
    runtime = result.runtime
    if result.assumed:
        paragraph(_say("For {model} at INT4, as no model could be opened:", model=result.assumed))
    if runtime is None:
        paragraph(translate("None: see the findings below."))
        return
    named_values(explained_rows(result.settings))
    out("")
    named_values(
        [
            (
                "Predicted peak",
                _say(
                    "{short} with {tokens} tokens in use, {full} with a full context; "
                    "{allowed} may be taken",
                    short=_size(result.short_peak),
                    tokens=min(SHORT_RUN, runtime.context),
                    full=_size(runtime.predicted_peak),
                    allowed=_size(result.allowed),
                ),
            ),
            ("Recommended", _recommended(result.recommended)),
        ]
    )
    out("")
    for reason in result.why:
        paragraph(localized(reason.sentence, reason.values), 2, "-")


def _recommended(model: str | None) -> str:
    if model is None:
        return translate("the demo; too little memory is available for a larger model")
    return _say("{model}, which has room in what is available", model=model)
