"""A piece of the machine to itself: own mounts, own processes, own right to run Arm programs.

Everything that is mounted or registered in such a namespace is gone with its last process, however
that process ended, so that nothing has to be undone on the machine itself.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""How Debian's qemu-user-static tells the kernel to run Arm programs."""
SYSTEM_RULE = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
IDS = 65536
"""User and group numbers that a Debian needs."""

libc = ctypes.CDLL(None, use_errno=True)


class UnavailableError(Exception):
    """This machine forbids or lacks something; the message is one line that names it."""


def call(name: str, *arguments: object) -> None:
    """Calls a function of the C library that returns 0, or raises OSError."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2).

    Raises:
        UnavailableError: it is forbidden.
    """
    try:
        call(
            "mount", source.encode(), str(target).encode(), kind.encode() or None,
            ctypes.c_ulong(flags), options.encode() or None,
        )  # fmt: skip
    except PermissionError as error:
        what = kind or source
        raise UnavailableError(f"mounting {what} is forbidden here ({error.strerror})") from None


def unmount(target: str) -> None:
    """Takes a mount away, at once even where something uses it."""
    call("umount2", os.fsencode(target), MNT_DETACH)


def show(folder: Path, target: Path) -> None:
    """Mounts a folder of the machine read-only at another place."""
    mount(str(folder), target, flags=MS_BIND)
    # What the machine forbids there has to stay forbidden.
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME)
    mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def inside(work: Callable[[], int]) -> int:
    """Runs ``work`` as root of a new user, mount and process namespace; its exit code.

    Should this process die, everything in the namespace is killed with it.

    Raises:
        UnavailableError: the machine forbids such namespaces.
    """
    ready, go = os.pipe(), os.pipe()
    sys.stdout.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(ready[0])
        os.close(go[1])
        _end_with(_first(work, parent, ready[1], go[0]))
    os.close(ready[1])
    os.close(go[0])
    with os.fdopen(ready[0]) as answer:
        said = answer.read()
    try:
        if said:
            raise UnavailableError(f"user namespaces are forbidden here ({said})")
        _map_ids(child)
        os.write(go[1], b"g")
    finally:
        # Without that letter the child ends by itself.
        os.close(go[1])
        code = _wait(child)
    return code


def _end_with(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int) -> int:
    """The exit code of a process; Ctrl-C, which it gets too, does not end the waiting."""
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except KeyboardInterrupt:
            continue


def _first(work: Callable[[], int], parent: int, ready: int, go: int) -> int:
    """The first process: makes the namespace and starts the one whose number in it is 1."""
    _die_with(parent)
    try:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
    except OSError as error:
        os.write(ready, str(error.strerror).encode())
        return 1
    os.close(ready)
    if os.read(go, 1) != b"g":
        return 1
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    child = os.fork()
    if child:
        return _wait(child)
    # From in there the process outside has no number: 0 stands for it.
    _die_with(0)
    try:
        mount("none", Path("/"), flags=MS_REC | MS_PRIVATE)
        return work()
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1


def _die_with(parent: int) -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _map_ids(child: int) -> None:
    """Gives the namespace its users: the machine's own for root, else those of /etc/subuid."""
    if os.geteuid() == 0:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 0 {IDS}")
        return
    me = pwd.getpwuid(os.geteuid()).pw_name
    own = {"newuidmap": os.geteuid(), "newgidmap": os.getegid()}
    for command, file in (("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid")):
        lines = [line.split(":") for line in _text(file).splitlines()]
        ranges = [line[1:] for line in lines if line[0] == me and int(line[2]) >= IDS - 1]
        if shutil.which(command) is None or not ranges:
            raise UnavailableError(
                f"without root, {command} (package uidmap) and {IDS} numbers for {me} "
                f"in {file} are needed"
            )
        mapping = ["0", str(own[command]), "1", "1", ranges[0][0], str(IDS - 1)]
        subprocess.run([command, str(child), *mapping], check=True)


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def run_arm_programs(folder: Path) -> None:
    """Lets this namespace run 64-bit Arm programs by qemu, on the core that QEMU_CPU names.

    Args:
        folder: an empty one to mount in.

    Raises:
        UnavailableError: neither the machine nor its kernel allows it.
    """
    if not RULE.exists():
        raise UnavailableError("qemu for Arm is missing (package qemu-user-static)")
    if SYSTEM_RULE.exists() and "enabled" in SYSTEM_RULE.read_text():
        return
    try:
        register(folder, RULE.read_text().strip())
    except (OSError, UnavailableError) as error:
        raise UnavailableError(
            "Arm programs are not run by qemu, and a namespace may not change that: "
            f"Linux 6.7 or the package binfmt-support is needed ({error})"
        ) from None


def register(folder: Path, rule: str) -> None:
    """Adds a rule of binfmt_misc to this namespace, mounting that in a folder where it is not."""
    if not (folder / "register").exists():
        mount("binfmt_misc", folder, "binfmt_misc")
    (folder / "register").write_text(rule)
