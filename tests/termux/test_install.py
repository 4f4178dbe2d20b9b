"""``termux/install.sh`` on a make-believe phone, through its branches, under three shells."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from tests.termux.phone import ROOT, SCRIPT, SHELLS, STUB, Phone

LITE = ("python", "python-pip", "clang", "python-psutil")


@pytest.fixture(params=SHELLS)
def phone(request: pytest.FixtureRequest, tmp_path: Path) -> Phone:
    return Phone(tmp_path / "phone", request.param)


@pytest.fixture
def one_phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path / "phone")


def test_shellcheck_is_content() -> None:
    result = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=style", SCRIPT, STUB],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_lite(phone: Phone) -> None:
    result = phone.install()
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert phone.calls("pkg", "python -m", "qwen-edge") == [
        "pkg update",
        "pkg upgrade -y -o Dpkg::Options::=--force-confold",
        "pkg install -y python python-pip clang python-psutil",
        f"python -m pip install --no-input --disable-pip-version-check --upgrade {ROOT}",
        "qwen-edge run --model demo --no-think --max-tokens 24 Who are you?",
    ]
    # What it costs stands before the first command, and exactly once apt knows it.
    assert result.stdout.index("about 155 MB") < result.stdout.index("$ pkg")
    assert "Exactly: 2 packages, 50 MB." in result.stdout
    assert "qwen-edge pull qwen3-0.6b" in result.stdout
    assert "I am a tiny model." in phone.log
    assert not (phone.state / "lock").exists()


def test_a_second_run_does_nothing_twice(phone: Phone) -> None:
    phone.install()
    phone.calls()
    result = phone.install()
    assert result.returncode == 0, result.stderr
    assert "from the same sources" in result.stdout
    assert "about 5 MB" in result.stdout
    assert not phone.calls("pkg install", "python -m")


def test_changed_sources_are_installed_again(one_phone: Phone, tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "qwen_edge").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    (checkout / "qwen_edge" / "x.py").write_text("1")
    one_phone.install("--source", str(checkout))
    one_phone.calls()
    (checkout / "qwen_edge" / "libqwen_edge.so").write_text("built")
    one_phone.install("--source", str(checkout))
    assert not one_phone.calls("python -m")
    (checkout / "qwen_edge" / "x.py").write_text("2")
    assert one_phone.install("--source", str(checkout)).returncode == 0
    (pip,) = one_phone.calls("python -m")
    assert pip.endswith(f"--upgrade {checkout}")


def test_pips_arguments_build_the_real_package(one_phone: Phone) -> None:
    """Python, pip and the compiler are this machine's; nothing is downloaded."""
    venv.create(one_phone.prefix, with_pip=False)
    environment = {
        "PATH": f"{one_phone.bin}:{one_phone.prefix / 'bin'}:{os.environ['PATH']}",
        # What Termux's packages and the index would bring.
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        # The value of such a variable is that of the option without its "no".
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    one_phone.set("packages", "\n".join(LITE))
    result = one_phone.install(environment=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    (library,) = one_phone.prefix.rglob("libqwen_edge.so")
    assert library.stat().st_size > 100_000
    # The demo model answered.
    assert "qwen-edge" in result.stdout.split("Who are you?")[1].split("Done.")[0]
    assert "from the same sources" in one_phone.install(environment=environment).stdout
    assert one_phone.install("--uninstall", environment=environment).returncode == 0
    assert not list(one_phone.prefix.rglob("qwen?edge*"))


def test_full(phone: Phone) -> None:
    result = phone.install("--full")
    assert result.returncode == 0, result.stderr
    assert phone.calls("pkg install") == [
        "pkg install -y python python-pip clang python-psutil python-numpy python-torch"
    ]
    assert "torch 2.11.0" in result.stdout


def test_proot(phone: Phone) -> None:
    result = phone.install("--proot")
    assert result.returncode == 0, result.stderr
    login = f"proot-distro login --bind {ROOT}:/opt/qwen-edge-source debian -- "
    calls = phone.calls("proot-distro")
    assert calls[:3] == [f"{login}true", "proot-distro install debian", f"{login}apt-get update"]
    assert (
        f"{login}/opt/qwen-edge/bin/pip install --no-input --upgrade torch==2.10.0 "
        "/opt/qwen-edge-source[torch]"
    ) in calls
    assert "proot-distro login debian -- qwen-edge chat --engine torch" in result.stdout
    again = phone.install("--proot")
    assert again.returncode == 0, again.stderr
    assert "proot-distro install debian" not in phone.calls("proot-distro")
    assert "about 5 MB" in again.stdout


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("qwen-edge", "qwen-edge[torch]"),
        ("qwen-edge==0.1", "qwen-edge[torch]==0.1"),
        ("git+file:///a/b", "qwen-edge[torch] @ git+file:///a/b"),
        ("ARCHIVE", "qwen-edge[torch] @ file:///opt/qwen-edge-source/q-0.1.tar.gz"),
    ],
)
def test_other_sources(one_phone: Phone, tmp_path: Path, source: str, named: str) -> None:
    archive = tmp_path / "q-0.1.tar.gz"
    archive.touch()
    source = source.replace("ARCHIVE", str(archive))
    result = one_phone.install("--proot", environment={"QWEN_EDGE_SOURCE": source})
    assert result.returncode == 0, result.stderr
    calls = one_phone.calls()
    assert any(call.startswith("python -m pip") and call.endswith(source) for call in calls)
    assert any("pip install" in call and call.endswith(named) for call in calls)


def test_through_a_pipe_it_takes_the_name(phone: Phone) -> None:
    result = phone.install(piped=True)
    assert result.returncode == 0, result.stderr
    assert phone.calls("python -m")[0].endswith("--upgrade qwen-edge")


def test_a_script_cut_off_does_nothing(phone: Phone, tmp_path: Path) -> None:
    text = SCRIPT.read_text()
    cut = tmp_path / "install.sh"
    for end in range(2000, len(text) - 20, 3500):
        cut.write_text(text[: text.rindex("\n", 0, end) + 1])
        phone.install(script=cut, piped=True)
        assert not phone.calls("pkg", "python"), f"cut off at {end}"


def test_dry_run_changes_nothing(phone: Phone) -> None:
    before = sorted(phone.folder.rglob("*"))
    result = phone.install("--dry-run", "--full", "--proot")
    assert result.returncode == 0, result.stderr
    assert "$ pkg install -y python" in result.stdout
    assert "$ proot-distro login --bind" in result.stdout
    assert "Nothing was changed." in result.stdout
    assert not phone.calls("pkg", "python -m", "proot-distro install", "termux-wake-lock")
    assert sorted(phone.folder.rglob("*")) == before


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_works_anywhere(one_phone: Phone, option: str) -> None:
    result = one_phone.install(option, environment={"TERMUX_VERSION": ""})
    assert result.returncode == 0
    assert "--uninstall" in result.stdout
    assert not one_phone.calls("pkg")
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("options", [["--fast"], ["--source"], ["--source=/nowhere/at/all"]])
def test_usage(one_phone: Phone, options: list[str]) -> None:
    result = one_phone.install(*options)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 2
    assert not one_phone.calls("pkg")


@pytest.mark.parametrize(
    ("facts", "environment", "code", "words"),
    [
        ({}, {"TERMUX_VERSION": ""}, 10, "not Termux"),
        ({}, {"PREFIX": ""}, 10, "not Termux"),
        ({"system": "GNU/Linux"}, {}, 10, "not Termux"),
        ({}, {"TERMUX_APK_RELEASE": "GOOGLE_PLAY_STORE"}, 11, "F-Droid"),
        ({}, {"TERMUX_VERSION": "googleplay.2025.10.05"}, 11, "F-Droid"),
        ({}, {"TERMUX_VERSION": "0.101"}, 11, "F-Droid"),
        ({"architecture": "arm"}, {}, 12, "The processor is aarch64"),
        ({"architecture": "i686", "kernel-machine": "i686"}, {}, 12, "32-bit"),
        ({"architecture": "riscv64"}, {}, 12, "not supported"),
        ({"property-ro.build.version.sdk": "23"}, {}, 13, "too old"),
        ({"uid": "0"}, {}, 14, "root"),
        ({"free-kb": "500000"}, {}, 15, "488 MB are free"),
    ],
)
def test_refusals(
    phone: Phone, facts: dict[str, str], environment: dict[str, str], code: int, words: str
) -> None:
    for name, value in facts.items():
        phone.set(name, value)
    result = phone.install(environment=environment)
    assert result.returncode == code
    assert words in result.stderr
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "hint"]
    assert not phone.calls("pkg", "termux-wake-lock")
    assert not phone.state.exists()


@pytest.mark.parametrize("version", ["0.118", "0.118.3", "0.119.0-beta.3", "1.0"])
def test_versions_of_termux_that_serve(one_phone: Phone, version: str) -> None:
    result = one_phone.install("--dry-run", environment={"TERMUX_VERSION": version})
    assert result.returncode == 0, result.stderr


def test_proot_is_for_arm(one_phone: Phone) -> None:
    one_phone.set("architecture", "x86_64")
    assert one_phone.install("--proot").returncode == 12
    assert one_phone.install().returncode == 0


def test_what_cannot_be_known_is_a_warning(one_phone: Phone) -> None:
    one_phone.set("property-ro.build.version.sdk", "")
    (one_phone.bin / "df").unlink()
    result = one_phone.install()
    assert result.returncode == 0
    assert result.stdout.count("warning:") == 2


def test_android_12_gets_the_note(one_phone: Phone) -> None:
    assert "Android 12" not in one_phone.install().stdout
    one_phone.set("property-ro.build.version.sdk", "31")
    assert "Android 12" in one_phone.install().stdout


# The first command of each step that can fail, with the code of its step.
STEPS = [
    ("pkg update", 20),
    ("pkg upgrade*", 20),
    ("pkg install*", 21),
    ("python -m pip install*", 22),
    ("qwen-edge run*", 23),
    ("python -c import numpy, torch*", 23),
    ("proot-distro install*", 24),
    ("proot-distro login*apt-get update", 25),
    ("proot-distro login*apt-get install*", 25),
    ("proot-distro login*venv /opt*", 25),
    ("proot-distro login*bin/pip install*", 25),
    ("proot-distro login* ln -sf*", 25),
    ("proot-distro login*qwen-edge run*", 23),
]


@pytest.mark.parametrize(("pattern", "code"), STEPS)
def test_a_failure_is_told_and_the_next_run_completes(
    phone: Phone, pattern: str, code: int
) -> None:
    phone.fails(pattern)
    result = phone.install("--full", "--proot")
    assert result.returncode == code, result.stdout + result.stderr
    error, hint, left, log = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert left.startswith("Not finished: done are ")
    assert log == f"Everything is in {phone.state}/install.log"
    assert f"exit code {code}" in phone.log
    assert not (phone.state / "lock").exists()
    phone.works()
    again = phone.install("--full", "--proot")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "error" not in again.stderr
    assert phone.program.exists()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("write error: No space left on device", 15),
        ("E: You don't have enough free space in /data/.", 15),
        ("Could not resolve 'a.b'", 16),
        ("ERROR: Max retries exceeded with url", 16),
        ("Temporary failure in name resolution", 16),
    ],
)
@pytest.mark.parametrize("pattern", ["pkg update", "pkg install*", "python -m pip install*"])
def test_a_full_disk_and_no_network_are_recognized(
    one_phone: Phone, pattern: str, message: str, code: int
) -> None:
    one_phone.fails(pattern, message)
    assert one_phone.install().returncode == code
    one_phone.works()
    assert one_phone.install().returncode == 0


def test_a_list_that_apt_only_warns_of_is_a_failure(one_phone: Phone) -> None:
    one_phone.set("update-says", "W: Some index files failed to download. They have been ignored.")
    assert one_phone.install().returncode == 16
    one_phone.set("update-says", "W: Failed to fetch file:///x  File has unexpected size")
    result = one_phone.install()
    assert result.returncode == 20
    assert "termux-change-repo" in result.stderr


def test_packages_half_installed_are_finished_first(one_phone: Phone) -> None:
    one_phone.set("audit", "The following packages are only half configured: clang")
    one_phone.fails("dpkg --configure*")
    assert one_phone.install().returncode == 20
    one_phone.works()
    one_phone.calls()
    assert one_phone.install().returncode == 0
    calls = one_phone.calls("dpkg --configure", "pkg update")
    assert calls == ["dpkg --configure -a", "pkg update"]


def test_python_was_upgraded(phone: Phone) -> None:
    phone.install()
    phone.calls()
    phone.upgrade_python("3.15")
    result = phone.install()
    assert result.returncode == 0, result.stderr
    assert "Python was upgraded from 3.14 to 3.15" in result.stdout
    assert [call for call in phone.calls("python -m") if "pip install" in call]
    assert (phone.prefix / "lib/python3.15/site-packages/qwen_edge").is_dir()
    assert not (phone.prefix / "lib/python3.14/site-packages/qwen_edge").exists()
    assert "Python was upgraded" not in phone.install().stdout


def test_python_was_upgraded_for_an_installation_by_hand(one_phone: Phone) -> None:
    one_phone.install(piped=True)
    shutil.rmtree(one_phone.state)
    one_phone.upgrade_python("3.15")
    result = one_phone.install(piped=True)
    assert result.returncode == 0
    assert "Python was upgraded from 3.14 to 3.15" in result.stdout


@pytest.mark.parametrize("piped", [False, True])
def test_a_damaged_program_is_replaced(one_phone: Phone, piped: bool) -> None:
    one_phone.install(piped=piped)
    # It loads and does not run.
    one_phone.fails("qwen-edge run*")
    assert one_phone.install(piped=piped).returncode == 23
    one_phone.works()
    one_phone.calls()
    result = one_phone.install(piped=piped)
    assert result.returncode == 0
    assert "does not work: it is installed again" in result.stdout
    assert "pip uninstall -y qwen-edge" in one_phone.calls("python -m")[0]


def test_without_psutil_pip_is_not_tried(one_phone: Phone) -> None:
    one_phone.fails("python -c import psutil")
    result = one_phone.install()
    assert result.returncode == 22
    assert "pkg reinstall python python-psutil" in result.stderr
    assert not one_phone.calls("python -m")


def test_uninstall(phone: Phone) -> None:
    phone.install("--proot")
    models = phone.home / ".local/share/qwen-edge/models"
    models.mkdir(parents=True)
    dry = phone.install("--uninstall", "--dry-run")
    assert dry.returncode == 0
    assert phone.program.exists()
    phone.upgrade_python("3.15")
    result = phone.install("--uninstall")
    assert result.returncode == 0, result.stderr
    assert not phone.program.exists()
    assert not list(phone.prefix.rglob("qwen_edge*"))
    assert not (phone.folder / "debian/venv").exists()
    assert models.exists()
    assert "proot-distro remove debian" in result.stdout
    assert str(models.parent) in result.stdout
    again = phone.install("--uninstall")
    assert again.returncode == 0
    assert phone.install().returncode == 0


@pytest.mark.parametrize("pattern", ["python -m pip uninstall*", "proot-distro login*rm -rf*"])
def test_uninstall_fails_and_the_next_completes(one_phone: Phone, pattern: str) -> None:
    one_phone.install("--proot")
    one_phone.fails(pattern)
    assert one_phone.install("--uninstall").returncode == 26
    one_phone.works()
    assert one_phone.install("--uninstall").returncode == 0
    assert not one_phone.program.exists()


def test_uninstall_on_a_bare_termux(one_phone: Phone) -> None:
    assert one_phone.install("--uninstall").returncode == 0
    assert not one_phone.calls("python", "proot-distro", "pkg")


def test_two_at_once(one_phone: Phone) -> None:
    (one_phone.state / "lock").mkdir(parents=True)
    (one_phone.state / "lock/pid").write_text(f"{os.getpid()}\n")
    result = one_phone.install()
    assert result.returncode == 17
    assert (one_phone.state / "lock").exists()
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    (one_phone.state / "lock/pid").write_text(ended.stdout)
    assert one_phone.install().returncode == 0


def test_without_a_place_for_its_log(one_phone: Phone) -> None:
    (one_phone.home / ".local").touch()
    result = one_phone.install()
    assert result.returncode == 1
    assert not one_phone.calls("pkg")


def run_until_signalled(phone: Phone, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal to all of an installation that is in its first command: status, stderr."""
    slow = phone.bin / "pkg"
    slow.unlink()
    slow.write_text('#!/bin/sh\necho "$$" >"$PHONE/slow"\nexec sleep 60\n')
    slow.chmod(0o755)
    process = subprocess.Popen(
        [*phone.shell, str(SCRIPT)],
        env=phone.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (phone.folder / "slow").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    slow.unlink()
    slow.symlink_to(phone.folder / "stub")
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_interrupted(phone: Phone, number: signal.Signals) -> None:
    status, errors = run_until_signalled(phone, number)
    assert status == 130
    assert "error: Interrupted." in errors
    assert "failed: updating packages" in errors
    assert not (phone.state / "lock").exists()
    assert phone.install().returncode == 0


def test_killed(phone: Phone) -> None:
    status, _ = run_until_signalled(phone, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert (phone.state / "lock").exists()
    assert phone.install().returncode == 0
    assert not (phone.state / "lock").exists()


def test_the_screen_may_go_off(one_phone: Phone) -> None:
    one_phone.install()
    calls = one_phone.calls("termux-wake", "pkg update")
    deadline = time.monotonic() + 20
    while "termux-wake-unlock" not in calls and time.monotonic() < deadline:
        time.sleep(0.01)
        calls += one_phone.calls("termux-wake")
    assert sorted(calls) == ["pkg update", "termux-wake-lock", "termux-wake-unlock"]
    for name in ("termux-wake-lock", "termux-wake-unlock"):
        (one_phone.bin / name).unlink()
    assert one_phone.install().returncode == 0


@pytest.mark.parametrize(
    ("environment", "chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "zh_TW.UTF-8"}, True),
        ({"QWEN_EDGE_LANG": "en", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
    ],
)
def test_chinese(phone: Phone, environment: dict[str, str], chinese: bool) -> None:
    phone.set("uid", "0")
    result = phone.install(environment=environment)
    assert result.returncode == 14
    # bash warns first where the machine of the tests lacks the locale.
    assert ("\n错误：" in "\n" + result.stderr) == chinese
    assert ("\nerror: " in "\n" + result.stderr) != chinese
    assert ("用法" in phone.install("--help", environment=environment).stdout) == chinese


def test_chinese_by_the_phones_own_setting(one_phone: Phone) -> None:
    # Termux says en_US whatever the phone's language is.
    one_phone.set("property-persist.sys.locale", "zh-Hans-CN")
    result = one_phone.install()
    assert "完成。" in result.stdout
    one_phone.fails("pkg update")
    assert "尚未完成" in one_phone.install().stderr


def assigned() -> dict[str, str]:
    """The variables that the script sets before anything else."""
    lines = SCRIPT.read_text().split("usage() {")[0].splitlines()
    settings = [line for line in lines if re.match("[A-Z_]+=", line)]
    return dict(re.findall(r'([A-Z_]+)="?([^" ]+(?: \d+)?)', " ".join(settings)))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_exit_code_is_documented(one_phone: Phone, language: str) -> None:
    page = "README.md" if language == "en" else "README.zh-CN.md"
    codes = [value for name, value in assigned().items() if name.startswith("EXIT_")]
    assert {"2", "10", "26", "130"} <= set(codes)
    help_text = one_phone.install("--help", environment={"QWEN_EDGE_LANG": language}).stdout
    readme = (ROOT / "termux" / page).read_text()
    for code in codes:
        assert re.search(rf"\b{code}\b", help_text.split("--help")[1], re.ASCII), code
        assert re.search(rf"\|[^|]*\b{code}\b[^|]*\|", readme, re.ASCII), code


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_page_gives_the_sizes_of_the_script(page: str) -> None:
    readme = (ROOT / "termux" / page).read_text()
    lite, full, proot = (int(assigned()[f"{n}_MB"].split()[0]) for n in ("LITE", "FULL", "PROOT"))
    for megabytes in (5 + lite, 5 + lite + full, 5 + lite + proot):
        assert f" {megabytes} MB |" in readme
