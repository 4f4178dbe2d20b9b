"""Where this machine takes its packages from: apt's mirrors and pip's settings."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .namespace import UnavailableError

APT = Path("/etc/apt")
CERTIFICATES = Path("/etc/certificates-of-the-machine.crt")
"""Where the roots have this machine's certificates; Debian's own path is changed by upgrades."""


@dataclass(frozen=True)
class Archive:
    """One line of apt's sources."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def __str__(self) -> str:
        return f"deb {self.uri} {self.suite} {' '.join(self.components)}"


def archives(folder: Path = APT) -> list[Archive]:
    """All archives of binary packages in apt's sources, in both of their formats."""
    found: list[Archive] = []
    lists = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]
    for path in lists:
        for line in path.read_text().splitlines() if path.exists() else []:
            words = line.partition("#")[0].split()
            if words[:1] != ["deb"]:
                continue
            if words[1].startswith("["):
                end = next(i for i, word in enumerate(words) if word.endswith("]"))
                words[1 : end + 1] = []
            found.append(Archive(words[1], words[2], tuple(words[3:])))
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        for entry in path.read_text().split("\n\n"):
            found += _deb822(entry)
    return found


def _deb822(entry: str) -> list[Archive]:
    fields = {"enabled": "yes"}
    name = ""
    for line in entry.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] += f" {line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields["enabled"] == "no":
        return []
    components = tuple(fields.get("components", "").split())
    return [
        Archive(uri, suite, components)
        for uri in fields["uris"].split()
        for suite in fields["suites"].split()
    ]


def debian(
    release: Path = Path("/etc/os-release"), folder: Path = APT, other: str = ""
) -> list[Archive]:
    """The archives of this machine's Debian, its main one first.

    Args:
        release: where the machine tells what it is.
        folder: of apt's settings.
        other: another release's name, whose main archive alone is wanted, from the same mirror.

    Raises:
        UnavailableError: this is no Debian, or its sources name no mirror of it.
    """
    facts = dict(
        line.split("=", 1) for line in release.read_text().splitlines() if "=" in line
    )  # fmt: skip
    name = facts.get("VERSION_CODENAME", "").strip('"')
    if facts.get("ID", "").strip('"') != "debian" or not name:
        raise UnavailableError("this machine is no Debian, whose mirror and keys would be used")
    suites = (name, f"{name}-updates", f"{name}-security")
    ours = [a for a in archives(folder) if a.suite in suites and "main" in a.components]
    ours.sort(key=lambda archive: suites.index(archive.suite))
    if not ours or ours[0].suite != name:
        raise UnavailableError(f"apt's sources name no mirror of Debian {name}")
    if other:
        return [Archive(ours[0].uri, other, ("main",))]
    return [Archive(a.uri, a.suite, ("main",)) for a in ours]


def certificates() -> Path:
    """The certificates that this machine's pip, else this machine, trusts."""
    return Path(_pip_settings().get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))


def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """pip's settings as variables for the phone, and the local folders that they name."""
    settings = _pip_settings()
    settings["PIP_CERT"] = str(CERTIFICATES)
    paths = []
    for word in " ".join(settings.values()).split():
        path = Path(unquote(urlsplit(word).path)) if word.startswith("file:") else Path(word)
        if path.is_absolute() and path.is_dir():
            # An index has its files beside it.
            paths.append(path.parent if path.name == "simple" else path)
    return settings, paths


def _pip_settings() -> dict[str, str]:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    settings: dict[str, str] = {}
    # A variable outweighs what files say.
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings["PIP_" + option.upper().replace("-", "_")] = " ".join(shlex.split(value))
    return settings
