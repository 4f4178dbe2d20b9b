"""A Debian for 64-bit Arm with python and clang and nothing else, built once and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import mirrors
from .namespace import MS_BIND, UnavailableError, mount, unmount

PACKAGES = ("python3", "python3-venv", "clang")
"""What the phone's "python" and "clang" are in Debian."""
RECIPE = 3
"""Raised when roots of before must not be used any more."""
SCRIPTS = Path("/usr/share/debootstrap/scripts")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL_PATHS = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
Builder = Callable[[Path, Sequence[mirrors.Archive]], None]
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")


class Store:
    """A folder for roots in the machine's temporary space, with one process at a time as master.

    Args:
        archives: where packages come from, the main archive first.
        folder: instead of the one that belongs to this user.
        builder: instead of ``build``.
    """

    def __init__(
        self,
        archives: Sequence[mirrors.Archive],
        folder: Path | None = None,
        builder: Builder | None = None,
    ) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / f"qwen-edge-arm-{os.getuid()}"
        self._archives = archives
        self._build = builder or build
        name = f"root-{key(archives)}"
        self._root, self._facts = self.folder / name, self.folder / f"{name}.json"

    @contextmanager
    def mastered(self) -> Iterator[None]:
        """Waits until no other process uses the folder; clears it before and after.

        Raises:
            UnavailableError: somebody else's folder is in the way.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self.folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise UnavailableError(f"{self.folder} belongs to somebody else")
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print("Another run is using the Arm root; this one waits for it.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._clear()
            try:
                yield
            finally:
                self._clear()

    def _clear(self) -> None:
        """Removes all but the lock and the whole root, such as what a killed run left."""
        keep = {self.folder / "lock"}
        if self._facts.exists():
            keep |= {self._facts, self._root}
        for path in set(self.folder.iterdir()) - keep:
            remove(path)

    def ready(self) -> Path:
        """The whole and unchanged root, built anew where it is not."""
        if self._facts.exists():
            facts = json.loads(self._facts.read_text())
            if fingerprint(self._root) == facts["fingerprint"]:
                print(f"root: found whole, built in {facts['seconds']} s", flush=True)
                return self._root
            print("root: the one in the cache was changed; it is built anew", flush=True)
            self._facts.unlink()
            remove(self._root)
        start = time.monotonic()
        making = self.folder / "making"
        self._build(making, self._archives)
        making.rename(self._root)
        seconds = round(time.monotonic() - start)
        facts = {"fingerprint": fingerprint(self._root), "seconds": seconds}
        os.sync()
        partial = self._facts.with_suffix(".partial")
        partial.write_text(json.dumps(facts))
        # Only now is it taken for whole.
        partial.replace(self._facts)
        print(f"root: built in {seconds} s", flush=True)
        return self._root

    def copy(self, name: str) -> Path:
        """A copy of the root that may be changed, gone with the next ``clear``."""
        target = self.folder / name
        subprocess.run(["cp", "-a", "--reflink=auto", self.ready(), target], check=True)
        return target


def key(archives: Sequence[mirrors.Archive]) -> str:
    """What went into a root, as a short name."""
    what = [RECIPE, PACKAGES, [str(archive) for archive in archives]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def build(folder: Path, archives: Sequence[mirrors.Archive]) -> None:
    """Lets debootstrap make the root; this takes minutes, since dpkg runs in emulation.

    Raises:
        UnavailableError: debootstrap is missing.
        RuntimeError: it fails, and this is what it said last.
    """
    program = find("debootstrap")
    folder.mkdir()
    devices(folder)
    main = archives[0]
    command = [
        program, "--arch=arm64", "--variant=minbase", "--force-check-gpg",
        f"--include={','.join(PACKAGES)}", main.suite, str(folder), main.uri,
    ]  # fmt: skip
    if not (SCRIPTS / main.suite).exists():
        # A release that this debootstrap does not know; all newer ones are made as sid is.
        command.append(str(SCRIPTS / "sid"))
    # Nothing else of this machine's settings holds in the root, such as its TMPDIR.
    environment = {
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C",
        # It takes the devices as they are.
        "container": "lxc",
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
    }
    result = subprocess.run(
        command, env=environment | {"PATH": ALL_PATHS}, stdout=subprocess.DEVNULL, check=False
    )
    if result.returncode:
        log = folder / "debootstrap" / "debootstrap.log"
        tail = log.read_text().splitlines()[-15:] if log.exists() else []
        raise RuntimeError("\n".join(["debootstrap failed:", *tail]))
    apt = folder / "etc" / "apt"
    (apt / "sources.list").write_text("\n".join(map(str, archives)) + "\n")
    # A mirror that stands still for some weeks serves as well; its signature counts as ever.
    (apt / "apt.conf.d" / "validity").write_text('Acquire::Check-Valid-Until "false";\n')
    network(folder)
    for words in ("update", "full-upgrade -y", "clean"):
        upgrade = subprocess.run(
            [find("chroot"), folder, "apt-get", "-qq", *words.split()],
            env=environment | {"PATH": SYSTEM_PATH},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if upgrade.returncode:
            raise RuntimeError(f"apt-get {words} failed:\n{upgrade.stdout[-3000:]}")
    unmount_below(folder)


def find(program: str) -> str:
    """The path of a program, also of those that only root has on its path.

    Raises:
        UnavailableError: there is none.
    """
    path = shutil.which(program, path=ALL_PATHS)
    if path is None:
        raise UnavailableError(f"{program} is missing (package {program})")
    return path


def network(root: Path) -> None:
    """The machine's name servers and certificates, which mirrors may need."""
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    if mirrors.certificates().exists():
        shutil.copy(mirrors.certificates(), root / mirrors.CERTIFICATES.relative_to("/"))
        line = f'Acquire::https::CaInfo "{mirrors.CERTIFICATES}";\n'
        (root / "etc" / "apt" / "apt.conf.d" / "certificates").write_text(line)


def devices(root: Path) -> None:
    """Mounts the devices that any program may expect; a namespace may not make its own."""
    folder = root / "dev"
    folder.mkdir(exist_ok=True)
    mount("tmpfs", folder, "tmpfs", options="mode=755")
    for name in DEVICES:
        (folder / name).touch()
        mount(f"/dev/{name}", folder / name, flags=MS_BIND)
    for name, target in (("pts", 0o755), ("shm", 0o1777)):
        (folder / name).mkdir(mode=target)
    (folder / "shm").chmod(0o1777)
    mount("devpts", folder / "pts", "devpts", options="newinstance,ptmxmode=0666")
    (folder / "ptmx").symlink_to("pts/ptmx")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (folder / name).symlink_to(f"/proc/self/fd/{number}")
    (folder / "fd").symlink_to("/proc/self/fd")
    (folder / "console").touch()
    mount("/dev/null", folder / "console", flags=MS_BIND)


def mounts_below(folder: Path) -> list[str]:
    """What is mounted at or below a folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    # A blank in a path is written as \\040.
    points = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    return [p for p in reversed(points) if p == str(folder) or p.startswith(f"{folder}/")]


def unmount_below(folder: Path) -> None:
    """Takes away all that this namespace has mounted there."""
    for point in mounts_below(folder):
        unmount(point)


def remove(path: Path) -> None:
    """Deletes a file or a whole tree, never what is mounted in it."""
    unmount_below(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def fingerprint(root: Path) -> str:
    """A hash of all names, kinds, modes, owners and contents of a tree; empty if there is none."""
    if not root.is_dir():
        return ""
    total = hashlib.sha256()
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            total.update(f"{path[len(str(root)) :]}\0{facts.st_mode}\0{facts.st_uid}\0".encode())
            total.update(f"{facts.st_gid}\0{facts.st_size}\0".encode())
            if stat.S_ISLNK(facts.st_mode):
                total.update(os.readlink(path).encode())
            elif stat.S_ISREG(facts.st_mode):
                with open(path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
