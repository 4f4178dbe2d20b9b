"""A make-believe phone in a copy of the Arm root: Termux's folders, names and limits."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.host.recorded import recorded

from . import mirrors
from .namespace import MS_BIND, UnavailableError, mount, show
from .root import devices, find, network

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
FILES = Path("/data/data/com.termux/files")
PREFIX, HOME = FILES / "usr", FILES / "home"
SOURCE = HOME / "qwen-edge"
USER = 10234
STUBBED = (
    "apt-get", "dpkg-query", "getprop", "id", "pkg", "termux-wake-lock", "termux-wake-unlock",
    "uname",
)  # fmt: skip
DEVICE = recorded("redmi_note_9")
"""The phone whose facts this one tells: /proc/cpuinfo, /proc/meminfo, clocks, properties."""
DENIED = ("loadavg", "stat", "uptime", "vmstat")
"""Files of /proc that Android does not let an app read."""
LOCKED_MEMORY = 64 << 10


@dataclass(frozen=True)
class Result:
    """What a program said, when its first byte came and when it ended, in seconds."""

    code: int
    out: str
    err: str
    first: float
    seconds: float


@dataclass
class Phone:
    """A copy of the root made into a phone.

    Args:
        root: the copy, which nothing else uses.
    """

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings, folders = mirrors.pip_settings()
        self.environment = {
            "PATH": f"{PREFIX}/bin:/usr/bin:/bin",
            "PREFIX": str(PREFIX),
            "HOME": str(HOME),
            "TMPDIR": str(PREFIX / "tmp"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "TERMUX_VERSION": "0.118.3",
            "QEMU_CPU": "max",
            **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
            **settings,
        }
        network(self.root)
        self._at_the_same_path(folders)
        self._system()
        self._termux()

    def _at_the_same_path(self, folders: Sequence[Path]) -> None:
        """Lets the phone read folders of the machine."""
        for folder in dict.fromkeys(folders):
            self.path(folder).mkdir(parents=True, exist_ok=True)
            show(folder, self.path(folder))

    def _system(self) -> None:
        """/dev, and what an app may read of /proc and /sys: the recorded device's, where told."""
        devices(self.root)
        proc = self.root / "proc"
        mount("proc", proc, "proc", options="hidepid=2")
        told = self.root / "told"
        shutil.copytree(DEVICE.root / "proc", told)
        denied = told / "denied"
        denied.touch()
        denied.chmod(0)
        for name, source in (
            *((name, told / name) for name in ("cpuinfo", "meminfo")),
            *((name, denied) for name in DENIED),
        ):
            mount(str(source), proc / name, flags=MS_BIND)
        shutil.copytree(DEVICE.root / "sys", self.root / "sys", dirs_exist_ok=True)
        for folder in [self.root / "sys", *(self.root / "sys").rglob("*")]:
            # Known files are found there, and nothing is to be listed.
            folder.chmod(0o711 if folder.is_dir() else 0o444)

    def _termux(self) -> None:
        """Termux's folders, Python at its place there, stubs, and a copy of the checkout."""
        self.make(["python3", "-m", "venv", "--system-site-packages", str(PREFIX)])
        binaries = self.root / (PREFIX / "bin").relative_to("/")
        shutil.copy(HERE / "phone.sh", binaries / "phone.sh")
        (binaries / "phone.sh").chmod(0o755)
        for name in STUBBED:
            (binaries / name).symlink_to("phone.sh")
        properties = "".join(f"[{k}]: [{v}]\n" for k, v in DEVICE.place.properties().items())
        self.path(PREFIX / "properties").write_text(properties)
        for folder in (HOME, PREFIX / "tmp"):
            self.path(folder).mkdir(parents=True)
        self.path(PREFIX / "tmp").chmod(0o1777)
        packages = next(self.path(PREFIX).glob("lib/python3.*/site-packages"))
        shutil.copy(HERE / "as_android.py", packages)
        (packages / "as_android.pth").write_text("import as_android\n")
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listing.split("\0")):
            target = self.path(SOURCE / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if (CHECKOUT / name).is_file():
                shutil.copy(CHECKOUT / name, target)

    def borrow_compiler(self) -> dict[str, str]:
        """Mounts the machine's own clang; the variables that let it compile for the phone.

        Raises:
            UnavailableError: the machine has none where Debian has it.
        """
        clang = Path(shutil.which("clang++") or "").resolve()
        folder = clang.parents[1] if len(clang.parents) > 1 else Path()
        if not folder.name.startswith("llvm-") or not Path("/lib64").exists():
            raise UnavailableError("Debian's clang is missing (package clang)")
        libraries = Path(f"/usr/lib/{platform.machine()}-linux-gnu")
        self._at_the_same_path([folder, libraries, Path("/lib64")])
        return {"CXX": f"{folder}/bin/clang++ --target=aarch64-linux-gnu"}

    def path(self, inside: Path) -> Path:
        """Where a path of the phone lies on the machine."""
        return self.root / inside.relative_to("/")

    def make(self, command: Sequence[str]) -> str:
        """Runs a command as the phone's maker, which has to succeed; what it said."""
        result = self.run(command, user=0)
        if result.code:
            raise RuntimeError(f"{' '.join(command)}: {result.out}{result.err}")
        return result.out

    def give_away(self) -> None:
        """Makes all of Termux its user's."""
        subprocess.run(["chown", "-R", f"{USER}:{USER}", self.path(FILES)], check=True)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        stdin: str = "",
        user: int = USER,
        log: Path | None = None,
    ) -> Result:
        """Runs a command of the phone in its home.

        Args:
            environment: more variables; ``QEMU_CPU`` is the core.
            user: as whom.
            log: a file that gets what it says, instead of the result.
        """
        start = time.monotonic()
        first = 0.0
        chunks = []
        with (
            (log or self.root / "stderr").open("wb") as said,
            (self.root / "stdin").open("w+") as given,
        ):
            given.write(stdin)
            given.flush()
            given.seek(0)
            process = subprocess.Popen(
                [
                    find("chroot"),
                    f"--userspec={user}:{user}",
                    "--groups=",
                    str(self.root),
                    *command,
                ],
                env=self.environment | dict(environment or {}),
                stdin=given,
                stdout=said if log else subprocess.PIPE,
                stderr=said,
                preexec_fn=_limits,
            )
            if process.stdout is not None:
                while chunk := os.read(process.stdout.fileno(), 65536):
                    first = first or time.monotonic() - start
                    chunks.append(chunk)
                process.stdout.close()
            code = process.wait()
        seconds = time.monotonic() - start
        err = "" if log else (self.root / "stderr").read_text(errors="replace")
        out = b"".join(chunks).decode("utf-8", "replace")
        return Result(code, out, err, first, seconds)


def _limits() -> None:
    hard = min(LOCKED_MEMORY, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] % (1 << 63))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
