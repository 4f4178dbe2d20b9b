"""A make-believe phone: a folder with the commands of Termux as stubs, to run ``install.sh`` on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "termux" / "install.sh"
STUB = Path(__file__).with_name("phone_stub.sh")
# How each shell is called; on Android sh is dash in Termux, and mksh or busybox elsewhere.
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
STUBBED = (
    "apt-get", "df", "dpkg", "dpkg-query", "getprop", "id", "pkg", "termux-wake-lock",
    "termux-wake-unlock", "uname",
)  # fmt: skip
# Nothing else is found on the phone, whatever the machine of the tests has.
TOOLS = (
    "awk", "basename", "cat", "cksum", "date", "dirname", "find", "grep", "ln", "mkdir", "rm",
    "sh", "sleep", "sort", "tee",
)  # fmt: skip


class Phone:
    """A fresh Termux on a 64-bit phone with Android 11; its fields are files that stubs read."""

    def __init__(self, folder: Path, shell: str = "dash") -> None:
        if shutil.which(SHELLS[shell][0]) is None:
            raise FileNotFoundError(f"the tests of install.sh need {shell}: see README.md")
        self.shell = [str(shutil.which(SHELLS[shell][0])), *SHELLS[shell][1:]]
        self.folder = folder
        self.prefix = folder / "usr"
        self.home = folder / "home"
        self.bin = folder / "bin"
        for path in (self.prefix, self.home, self.bin):
            path.mkdir(parents=True)
        shutil.copy(STUB, folder / "stub")
        for name in STUBBED:
            (self.bin / name).symlink_to(folder / "stub")
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.set("architecture", "aarch64")
        self.set("kernel-machine", "aarch64")
        self.set("system", "Android")
        self.set("uid", "10234")
        self.set("free-kb", "8000000")
        self.set("python", "3.14")
        self.set("packages", "")
        self.set("property-ro.build.version.sdk", "30")
        self.environment = {
            "PHONE": str(folder),
            "PATH": str(self.bin),
            "PREFIX": str(self.prefix),
            "HOME": str(self.home),
            "LANG": "en_US.UTF-8",
            "TERMUX_VERSION": "0.118.3",
        }

    def set(self, name: str, value: str) -> None:
        """Writes a fact that the stubs read."""
        (self.folder / name).write_text(value + "\n" if value else "")

    def fails(self, pattern: str, message: str = "It went wrong.") -> None:
        """Lets the first command that fits the shell pattern fail, until ``works`` is called."""
        self.set("fail", f"{pattern}|{message}")

    def works(self) -> None:
        """Ends the failing."""
        (self.folder / "fail").unlink(missing_ok=True)

    def install(
        self,
        *options: str,
        environment: Mapping[str, str] | None = None,
        script: Path = SCRIPT,
        piped: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``install.sh``, by its path or through a pipe."""
        arguments = ["-s", "--", *options] if piped else [str(script), *options]
        return subprocess.run(
            [*self.shell, *arguments],
            env=self.environment | dict(environment or {}),
            cwd=self.home,
            input=script.read_text() if piped else "",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def calls(self, *words: str) -> list[str]:
        """The commands that were run and begin with one of the words; all are forgotten then."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not words or line.startswith(words)]

    def upgrade_python(self, version: str) -> None:
        """What ``pkg upgrade`` does: pip's packages stay with the older version."""
        self.set("python", version)

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "qwen-edge"

    @property
    def log(self) -> str:
        return (self.state / "install.log").read_text()

    @property
    def program(self) -> Path:
        """The installed command."""
        return self.prefix / "bin" / "qwen-edge"
