"""What the installed program and the library's test programs have to do on the phone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.native import test_kv_file, test_operators, test_session, test_thread_pool
from tests.native.programs import ARM, build

from .phone import DEVICE, HOME, PREFIX, Phone, Result

ANDROID_CORE = "cortex-a76"
"""The core that is run as Android: it has what a Helio G85's have."""
QUESTION = "Who are you?"
GREEDY = ("--model", "demo", "--no-think", "--temperature", "0")
ISAS = [isa for _, isa in ARM]


class CheckError(Exception):
    """Something is not as it has to be; the message shows what was said."""


def expect(fact: object, what: str, result: Result | None = None) -> None:
    """Raises CheckError unless the fact holds."""
    if fact:
        return
    said = f"\nexit code {result.code}\n{result.out}{result.err}" if result else ""
    raise CheckError(f"not so: {what}{said}")


@dataclass(frozen=True)
class Core:
    """The phone with an emulated core; ``isa`` is the table of kernels that it has to choose."""

    phone: Phone
    name: str
    isa: str

    @property
    def android(self) -> bool:
        return self.name == ANDROID_CORE

    def program(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> Result:
        """Runs ``qwen-edge``, which has to succeed."""
        more = {"QEMU_CPU": self.name, **(environment or {})}
        if self.android:
            more["AS_ANDROID"] = "1"
        result = self.phone.run(["qwen-edge", *words], more, stdin=stdin)
        line = " ".join(words)
        expect(result.code == 0, f"`qwen-edge {line}` on {self.name} succeeds", result)
        expect("Traceback" not in result.err, f"`qwen-edge {line}` breaks nowhere", result)
        return result

    def run(self) -> Result:
        """The answer of ``run``: the same with the scalar kernels, and streamed."""
        best = self.program("run", *GREEDY, QUESTION)
        plain = self.program("run", *GREEDY, QUESTION, environment={"QWEN_EDGE_ISA": "scalar"})
        expect(best.out == plain.out, f"{self.isa} and scalar give the same text", best)
        expect("demo model" in best.out, "the answer makes sense", best)
        expect(not best.err, "nothing else is said", best)
        return best

    def slept(self) -> None:
        """The phone was kept awake, and may sleep again."""
        path = self.phone.path(HOME / "wake-locks")
        deadline = time.monotonic() + 30
        while True:
            calls = path.read_text().split()
            if calls and calls[-1] == "termux-wake-unlock":
                return
            expect(time.monotonic() < deadline, f"the wake lock is released: {calls}")
            time.sleep(0.1)

    def chat(self) -> str:
        """A chat that is left and taken up again, with what was said before in mind."""
        first = self.program("chat", *GREEDY, stdin="My name is Anna.\n")
        expect("Anna" in first.out, "the name is understood", first)
        second = self.program("chat", *GREEDY, "--resume", stdin="What is my name?\n")
        expect("Anna" in second.out, "the conversation of before is known", second)
        fresh = self.program("chat", *GREEDY, stdin="What is my name?\n")
        expect("Anna" not in fresh.out, "a new conversation knows nothing", fresh)
        return first.out + second.out + fresh.out

    def doctor(self) -> dict[str, Any]:
        """What ``doctor`` finds on a phone that hides most of /proc and all of /sys."""
        result = self.program("doctor", "--json")
        facts: dict[str, Any] = json.loads(result.out)
        kernels, device = facts["kernels"], facts["device"]
        place = ISAS.index(self.isa)
        available = [*ISAS[place::-1], "scalar"]
        expect(kernels == {"in_use": self.isa, "available": available}, "the kernels", result)
        expect(device["machine"] == "aarch64", "the processor", result)
        for name in ("total", "available", "swap_free"):
            expect(facts["memory"][name] == DEVICE.expected[name], f"{name} memory", result)
        expect(facts["processor"]["cores"] > 0, "the cores", result)
        expect(facts["configuration"]["threads"] > 0, "the threads", result)
        expect(facts["compiler"], "the compiler is found", result)
        expect(facts["python"]["executable"].startswith(str(PREFIX)), "Termux's Python", result)
        errors = [found for found in facts["findings"] if found["severity"] == "error"]
        expect(not errors, f"doctor finds no error: {errors}", result)
        expect(device["termux"], "Termux is recognized", result)
        expect(facts["python"]["platform"] == ("android" if self.android else "linux"), "platform")
        if self.android:
            for name in ("android_version", "api_level", "device"):
                expect(device[name] == DEVICE.expected[name], name, result)
        shown = self.program("doctor")
        expect(self.isa in shown.out, "doctor names the kernels", shown)
        report = self.program("doctor", "--report", "-")
        expect(json.loads(report.out), "a bug report", report)
        return facts

    def calibrate(self) -> None:
        """What was measured on this phone is its default from then on, and changes no answer."""
        before = self.program("run", *GREEDY, QUESTION)
        self.program("doctor", "--calibrate", "--model", "demo")
        after = self.program("run", *GREEDY, "--explain", QUESTION)
        expect("(calibrated)" in after.err, "what was measured is used", after)
        expect(before.out == after.out, "the answer stays", after)

    def bench(self) -> dict[str, Any]:
        """``bench`` measures and writes JSON that says where."""
        result = self.program("bench", "--model", "demo", "--quick", "--budget", "20", "--json")
        facts: dict[str, Any] = json.loads(result.out)
        expect(facts["kind"] == "bench", "the kind", result)
        expect(facts["settings"]["isa"] == self.isa, "the kernels measured", result)
        medians = {measure["key"]: measure["median"] for measure in facts["measures"]}
        for key in ("load", "first-token-cold", "prefill", "decode"):
            expect(medians.get(key, 0) > 0, f"{key} was measured", result)
        return facts


def native_programs(phone: Phone, *, same_release: bool) -> None:
    """Compiles the test programs for the phone.

    The compiler is the machine's, since an emulated one takes a quarter of an hour for it.

    Args:
        phone: where they are going to run.
        same_release: whether its Debian is the machine's. Then clang compiles against the phone's
            own libraries; an older compiler cannot read newer headers, and its cross compiler has
            some of its own, whose programs run with newer libraries, too.
    """
    folder = phone.root / "tests"
    folder.mkdir()
    compiler = "clang++" if same_release else "aarch64-linux-gnu-g++"
    own_libraries = ("--target=aarch64-linux-gnu", f"--sysroot={phone.root}", "-fuse-ld=lld")
    flags = own_libraries if same_release else ()
    for name, parts, kernels in (
        ("kernel_test", (), True),
        ("session_test", test_session.PARTS, True),
        ("operators_test", test_operators.PARTS, True),
        ("kv_file_test", test_kv_file.PARTS, False),
        ("thread_pool_test", test_thread_pool.PARTS, False),
    ):
        build(folder, name, parts, *flags, compiler=compiler, kernels=kernels)


def native_suite(core: Core) -> int:
    """Runs the test programs on a core; the number of checks that passed."""
    passed = 0
    for command, pattern in (
        (["kernel_test", core.isa], r"(\d+) passed, 0 failed"),
        (["session_test", "20"], rf"{core.isa}: (\d+) passed, 0 failed"),
        (["operators_test", "60"], rf"{core.isa}: *(\d+) passed, 0 failed"),
        (["kv_file_test"], r"(\d+) passed, 0 failed"),
        (["thread_pool_test"], r".*?(\d+) passed, 0 failed"),
    ):
        path = f"/tests/{command[0]}"
        result = core.phone.run([path, *command[1:]], {"QEMU_CPU": core.name})
        expect(result.code == 0, f"{command[0]} succeeds on {core.name}", result)
        last = result.out.splitlines()[-1]
        found = re.fullmatch(pattern, last)
        expect(found and int(found[1]) > 20, f"{command[0]} passes everything", result)
        passed += int(found[1]) if found else 0
    return passed
