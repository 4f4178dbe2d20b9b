"""What ``doctor`` finds out: the device, the program's parts, the model, and what is amiss.

Every part is gathered on its own, so that one that is broken is reported beside the others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.battery import Battery, read_sysfs
from qwen_edge.host.device import Device, read_device
from qwen_edge.host.paths import calibration_file
from qwen_edge.host.place import Place
from qwen_edge.host.storage import Storage, storage_of
from qwen_edge.host.system import packages_left_behind
from qwen_edge.session.calibration import Stored, read_calibration
from qwen_edge.session.engine_choice import NATIVE, EngineChoice
from qwen_edge.session.engine_setup import choose_engine, settle
from qwen_edge.session.footprint import ModelFacts, facts_of, predict_peak
from qwen_edge.session.known_models import KNOWN_MODELS
from qwen_edge.session.lora import wanted_lora, with_lora
from qwen_edge.session.models import DEFAULT_MODEL, FoundModel, resolve
from qwen_edge.session.opened import open_found
from qwen_edge.session.plan import engine_config, select_for
from qwen_edge.session.profile import DeviceProfile, read_profile
from qwen_edge.session.prompt_store import PromptStore, Usage
from qwen_edge.session.reason import Reason
from qwen_edge.session.reasons import reasons
from qwen_edge.session.recommendation import recommended_model
from qwen_edge.session.select import RuntimeConfig, allowed_bytes
from qwen_edge.session.settings import Explained, Settings, unknown_variables
from qwen_edge.session.termux_facts import TermuxFacts, termux_facts
from qwen_edge.session.torch_facts import TorchFacts, torch_facts

# Python packages that pip installed beside this one.
_NEEDED = ("typer", "jinja2", "psutil")
# Tokens in use in the second prediction: a question and its answer.
SHORT_RUN = 256


@dataclass(frozen=True)
class Finding:
    """Something that is amiss, in the form of an error: templates and their values."""

    severity: str
    sentence: str
    hint: str = ""
    values: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, error: QwenEdgeError) -> Finding:
        return cls("error", error.sentence, error.hint, error.values)

    def __str__(self) -> str:
        return self.sentence.format(**self.values) if self.values else self.sentence


@dataclass(frozen=True)
class Kernels:
    """The native library: the instruction set in use, and all that this processor can run."""

    in_use: str
    available: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """The model in question and its engine; ``facts`` are None where it cannot be opened."""

    found: FoundModel
    facts: ModelFacts | None
    storage: Storage
    choice: EngineChoice


@dataclass
class Diagnosis:
    """Everything found out; None where a part could not be.

    Attributes:
        device: the machine.
        profile: what of it decides the configuration.
        kernels: the native library.
        compiler: the C++ compiler's command.
        torch: what the torch engine would find, without importing torch.
        model: the model that a run would take.
        assumed: name of the model the prediction is for where there is none to open.
        runtime: the configuration a run would take.
        settings: each value with its origin.
        why: sentences on the configuration.
        allowed: bytes that the process may take.
        short_peak: predicted peak with ``SHORT_RUN`` tokens in use.
        prompts: system prompts that were kept computed.
        prompts_folder: where they are.
        calibration: what is stored of threads and cores that were measured with such a model.
        recommended: the model worth downloading for it, or None.
        termux: what there is of Termux; None elsewhere.
        battery: what the governor can see of it, or None.
        findings: what is amiss.
    """

    device: Device
    profile: DeviceProfile
    kernels: Kernels | None = None
    compiler: str | None = None
    torch: TorchFacts | None = None
    model: Model | None = None
    assumed: str | None = None
    runtime: RuntimeConfig | None = None
    settings: list[Explained] = field(default_factory=list)
    why: list[Reason] = field(default_factory=list)
    allowed: int = 0
    short_peak: int | None = None
    prompts: Usage | None = None
    prompts_folder: Path = Path()
    calibration: Stored = field(default_factory=Stored)
    recommended: str | None = None
    termux: TermuxFacts | None = None
    battery: Battery | None = None
    findings: list[Finding] = field(default_factory=list)


def diagnose(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    place: Place | None = None,
) -> Diagnosis:
    """Looks at everything; never raises for what it finds."""
    environ = os.environ if environ is None else environ
    place = place or Place()
    result = Diagnosis(read_device(place), read_profile(place))
    result.recommended = recommended_model(result.profile)
    result.kernels = _kernels(result.findings)
    result.compiler = _compiler(result.findings)
    result.torch = _torch(result.compiler, environ, place, result.findings)
    settings = _settings(flags, environ, result.findings)
    result.model = _model(settings, environ, place, result.findings)
    _calibration(result, environ)
    _configure(result, settings)
    store = PromptStore(0, environ)
    result.prompts, result.prompts_folder = store.usage(), store.folder
    result.termux = _termux(environ, place, result.findings)
    told = result.termux.battery if result.termux else None
    result.battery = told or read_sysfs(place)
    _look_around(result, environ, place)
    return result


def _kernels(findings: list[Finding]) -> Kernels | None:
    from qwen_edge.native.instruction_sets import available_isas, isa_name

    try:
        # A forced instruction set may be at fault while the library itself is sound.
        available = tuple(available_isas())
    except QwenEdgeError as error:
        findings.append(Finding.of(error))
        return None
    except AttributeError as error:
        findings.append(_outdated(error))
        return None
    try:
        return Kernels(isa_name(), available)
    except QwenEdgeError as error:
        findings.append(Finding.of(error))
        return Kernels("", available)


def _outdated(error: AttributeError) -> Finding:
    return Finding(
        "error",
        "The native library does not belong to this version: {reason}.",
        "Reinstall with `pip install --force-reinstall --no-deps qwen-edge`.",
        {"reason": error},
    )


def _compiler(findings: list[Finding]) -> str | None:
    from qwen_edge.native.build import CompilerError, find_compiler

    try:
        return " ".join(find_compiler())
    except (CompilerError, ValueError):
        # ValueError: quotes in $CXX that do not close.
        findings.append(
            Finding(
                "note",
                "There is no C++ compiler; it is needed only to install or update this program.",
                "Termux: `pkg install clang`.",
            )
        )
        return None


def _torch(
    compiler: str | None, environ: Mapping[str, str], place: Place, findings: list[Finding]
) -> TorchFacts:
    facts = torch_facts(compiler, environ, place)
    if facts.leaks:
        findings.append(
            Finding(
                "warning",
                "torch {version} loses memory on Android.",
                "Get 2.11 or later: `pkg upgrade python-torch`.",
                {"version": facts.version},
            )
        )
    if facts.version is not None and facts.compiler is None:
        findings.append(
            Finding(
                "note",
                "The torch engine finds no C++ compiler: it is slow, and compiles nothing.",
                "Termux: `pkg install clang`.",
            )
        )
    return facts


def _settings(
    flags: Mapping[str, object] | None, environ: Mapping[str, str], findings: list[Finding]
) -> Settings:
    try:
        return Settings.load(flags, environ)
    except UsageError as error:
        findings.append(Finding.of(error))
    try:
        # What was said on the command line still counts when the file or a variable is wrong.
        return Settings.load(flags, {}, Path(os.devnull))
    except UsageError as error:
        findings.append(Finding.of(error))
        return Settings({})


def _model(
    settings: Settings, environ: Mapping[str, str], place: Place, findings: list[Finding]
) -> Model | None:
    named = settings.values.get("model")
    try:
        choice = choose_engine(settings, place)
        found = resolve(str(named.value) if named else None, environ, engine=choice.name)
    except QwenEdgeError as error:
        findings.append(Finding.of(error))
        return None
    facts = None
    try:
        with contextlib.closing(open_found(found, choice.name)) as model:
            choice = settle(choice, model, settings, place, environ)[0]
            facts = with_lora(facts_of(model, choice), wanted_lora(settings, model.config))
    except QwenEdgeError as error:
        # Mapping a file needs the native library, whose failure is told of already.
        if str(error) not in map(str, findings):
            findings.append(Finding.of(error))
    except AttributeError as error:
        findings.append(_outdated(error))
    if found.note_due:
        findings.append(
            Finding(
                "note",
                "No model is downloaded, so the tiny demo answers.",
                "Get one with `qwen-edge pull qwen3-0.6b`.",
                {"model": DEFAULT_MODEL},
            )
        )
    storage = storage_of(found.path, place)
    if storage.slow:
        findings.append(
            Finding(
                "warning",
                "The model {path} lies on {kind}, where it runs at a small part of its speed.",
                "Copy it below your home folder.",
                {
                    "path": found.path,
                    "kind": "shared storage" if storage.shared else f"{storage.type}",
                },
            )
        )
    return Model(found, facts, storage, choice)


def _termux(
    environ: Mapping[str, str], place: Place, findings: list[Finding]
) -> TermuxFacts | None:
    facts = termux_facts(environ, place)
    if facts is not None and facts.api == "hangs":
        findings.append(
            Finding(
                "note",
                "Termux:API does not answer.",
                "Install the app Termux:API from where Termux itself came from, and open it once.",
            )
        )
    return facts


def _calibration(result: Diagnosis, environ: Mapping[str, str]) -> None:
    if result.kernels is None or result.model is None or result.model.facts is None:
        return
    facts = result.model.facts
    if result.model.choice.name != NATIVE:
        return
    result.calibration = read_calibration(result.profile, facts.config, facts.bits, environ)
    if result.calibration.damaged:
        result.findings.append(
            Finding(
                "warning",
                "{path} does not hold what this program wrote there, and counts as empty.",
                "`qwen-edge doctor --calibrate` measures again.",
                {"path": calibration_file(environ)},
            )
        )


def _configure(result: Diagnosis, settings: Settings) -> None:
    """Chooses as a run would; where there is no model, for the smallest Qwen3."""
    wishes = settings.wishes()
    if result.calibration.result:
        wishes = replace(wishes, calibrated=result.calibration.result.chosen)
    result.allowed = allowed_bytes(result.profile, wishes)
    facts = result.model.facts if result.model else None
    choice = result.model.choice if result.model else EngineChoice()
    if facts is None:
        facts, choice = next(iter(KNOWN_MODELS.values())), EngineChoice()
        result.assumed = facts.name
    try:
        runtime = select_for(choice, result.profile, facts, wishes)
    except QwenEdgeError as error:
        result.findings.append(Finding.of(error))
        return
    result.runtime = runtime
    result.settings = settings.explain(runtime)
    told = [choice.reason] if choice.reason else []
    result.why = told + reasons(result.profile, facts, runtime)
    filled = min(SHORT_RUN, runtime.context)
    result.short_peak = predict_peak(facts, engine_config(runtime), filled, choice)


def _look_around(result: Diagnosis, environ: Mapping[str, str], place: Place) -> None:
    """Finds what commonly goes wrong on a phone."""
    add = result.findings.append
    missing = tuple(name for name in _NEEDED if importlib.util.find_spec(name) is None)
    for version, names in packages_left_behind(missing).items():
        add(
            Finding(
                "warning",
                "Python was upgraded: {names} still lie with Python {version}, not with {now}.",
                "Run termux/install.sh again, or `pip install qwen-edge`; "
                "on Termux psutil comes with `pkg install python-psutil`.",
                {
                    "names": ", ".join(names),
                    "version": version,
                    "now": f"{sys.version_info.major}.{sys.version_info.minor}",
                },
            )
        )
    for name in unknown_variables(environ):
        add(
            Finding(
                "warning", "{name} is set and means nothing to this program.", "", {"name": name}
            )
        )
    library = storage_of(Path(__file__), place)
    if library.shared or library.noexec:
        add(
            Finding(
                "warning",
                "This program lies where libraries cannot be loaded ({kind}).",
                "Install it below your home folder.",
                {"kind": "shared storage" if library.shared else "noexec"},
            )
        )
    if result.device.memory.total is None:
        add(Finding("warning", "This device does not tell its memory; 2 GiB are assumed."))
    if result.device.system.proot:
        add(
            Finding(
                "note",
                "This runs under proot: system calls are slower, and parts of /proc are made up.",
                "Termux itself, outside proot, is faster.",
            )
        )
