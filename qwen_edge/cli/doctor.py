"""``qwen-edge doctor``: what this device is, what would run on it and how, and what is amiss."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen_edge import __version__
from qwen_edge.cli.awake import release_left_behind
from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.report import explained_rows, finding, heading, named_values, paragraph
from qwen_edge.cli.terminal import note, out
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.processor import Cluster
from qwen_edge.host.sizes import format_size
from qwen_edge.session.diagnosis import SHORT_RUN, Diagnosis, Finding, diagnose
from qwen_edge.session.engine_choice import NATIVE
from qwen_edge.session.termux_facts import TermuxFacts
from qwen_edge.session.torch_facts import TorchFacts

ISA_VARIABLE = "QWEN_EDGE_ISA"

app = typer.Typer(
    help="Look at this device and say what it can run.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def doctor_command(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Name or path of the model to check."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    with_torch: Annotated[
        bool,
        typer.Option("--torch", help="Load torch and its operators, too, which takes seconds."),
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write what a bug report needs as JSON, nothing private in it; - is the terminal.",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure which threads and cores are best for the model, and use them from now "
            "on; takes half a minute.",
        ),
    ] = False,
    clear_cache: Annotated[
        bool,
        typer.Option(
            "--clear-cache", help="Delete what was compiled for torch; it is compiled again."
        ),
    ] = False,
) -> None:
    """Check this device, the model and the setup, and show what would run."""
    if clear_cache:
        if model is not None or as_json or with_torch or report is not None or calibrate:
            raise UsageError("--clear-cache goes alone.")
        _clear_cache()
        return
    if calibrate:
        if as_json or with_torch or report is not None:
            raise UsageError("--calibrate goes with --model alone.")
        from qwen_edge.cli.calibrate_view import calibrate as measure

        measure({"model": model})
        return
    result = diagnose({"model": model})
    release_left_behind()
    if with_torch:
        _try_torch(result)
    if report is not None:
        if as_json:
            raise UsageError("--report and --json do not go together.")
        _write_report(result, report)
        return
    if as_json:
        import json

        out(json.dumps(as_table(result), indent=2, ensure_ascii=False, default=str))
        return
    named_values(_device_rows(result))
    heading("Program")
    named_values(_program_rows(result))
    heading("Configuration")
    _show_configuration(result)
    if result.findings:
        heading("Findings")
        for found in result.findings:
            finding(found.severity, found.sentence, found.hint, found.values)


def _write_report(result: Diagnosis, target: str) -> None:
    """Writes what a bug report needs to a file, or to standard output for ``-``."""
    import json

    from qwen_edge.cli.crash_log import read_log
    from qwen_edge.session.bug_report import bug_report

    text = json.dumps(bug_report(result, read_log()), indent=2, ensure_ascii=False)
    if target == "-":
        out(text)
        return
    from qwen_edge.model.replacing_file import ReplacingFile

    data = (text + "\n").encode("utf-8", "replace")
    with ReplacingFile(Path(target), len(data)) as file:
        file.write(data, 0)
        file.commit(lambda _: None)
    note("{path} has what a bug report needs; look through it before you send it.", path=target)


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
    from qwen_edge.cli.calibrate_view import stored_text

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


def _try_torch(result: Diagnosis) -> None:
    """Loads torch as the engine does, and notes what came of it."""
    from qwen_edge.cli.setup_view import SetupView
    from qwen_edge.session.torch_facts import try_torch

    assert result.torch is not None
    try:
        result.torch = try_torch(result.torch, SetupView())
    except QwenEdgeError as error:
        result.findings.append(Finding.of(error))


def _clear_cache() -> None:
    from qwen_edge.host.torch_cache import clear_torch_cache, read_torch_cache

    cache = read_torch_cache()
    size = format_size(cache.size)
    note("Compiled for torch: {size} in {path}.", size=size, path=cache.folder)
    clear_torch_cache(cache)
    if cache.size:
        note("It is deleted.")


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


def _termux_table(facts: TermuxFacts) -> dict[str, object]:
    table = {**facts._asdict(), "wake_lock": facts.wake_lock._asdict()}
    # It may come from elsewhere, too, so it has its own place.
    del table["battery"]
    return table


def as_table(result: Diagnosis) -> dict[str, Any]:
    """The whole diagnosis in plain types, for ``--json``. Sizes in bytes."""
    device, runtime = result.device, result.runtime
    return {
        "version": __version__,
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": sys.platform,
        },
        "device": {**device.system._asdict(), "machine": device.machine},
        "memory": device.memory._asdict(),
        "processor": {
            "name": device.processor_name,
            "cores": device.processor.cores,
            "big_cores": device.processor.big_cores,
            "little_cores": device.processor.little_cores,
            "clusters": [cluster._asdict() for cluster in device.processor.clusters],
        },
        "kernels": vars(result.kernels) if result.kernels else None,
        "isa_variable": ISA_VARIABLE,
        "compiler": result.compiler,
        "torch": _torch_table(result.torch),
        "model": _model_table(result),
        "calibration": _calibration_table(result),
        "computed_prompts": {
            "path": result.prompts_folder,
            **(result.prompts._asdict() if result.prompts else {}),
        },
        "termux": result.termux and _termux_table(result.termux),
        "battery": result.battery and result.battery._asdict(),
        "assumed_model": result.assumed,
        "configuration": vars(runtime) if runtime else None,
        "settings": [line._asdict() for line in result.settings],
        "why": [str(reason) for reason in result.why],
        "predicted_peak": {
            "short": result.short_peak,
            "full": runtime.predicted_peak if runtime else None,
        },
        "allowed": result.allowed,
        "recommended_model": result.recommended,
        "findings": [
            {
                "severity": found.severity,
                "sentence": str(found),
                "hint": found.hint.format(**found.values) if found.values else found.hint,
            }
            for found in result.findings
        ],
    }


def _torch_table(facts: TorchFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    cache = {"path": facts.cache.folder, "bytes": facts.cache.size, **facts.cache.sizes}
    return {**vars(facts), "cache": cache}


def _calibration_table(result: Diagnosis) -> dict[str, Any] | None:
    found = result.calibration.result
    if found is None:
        return None
    measured = {"decode": found.decode, "prefill": found.prefill, "when": found.when}
    return {**found.chosen._asdict(), **measured}


def _model_table(result: Diagnosis) -> dict[str, Any] | None:
    if result.model is None:
        return None
    facts, storage = result.model.facts, result.model.storage
    return {
        "path": Path(result.model.found.path),
        "kind": result.model.found.kind,
        "name": facts.name if facts else None,
        "bits": facts.bits if facts else None,
        "bytes": facts.weight_bytes if facts else None,
        "storage": storage._asdict(),
    }
