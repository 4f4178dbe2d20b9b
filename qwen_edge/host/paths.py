"""Where this program keeps its files.

``$QWEN_EDGE_HOME`` holds everything when it is set; otherwise the XDG folders do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def _folder(environ: Mapping[str, str] | None, variable: str, default: str) -> Path:
    """``$QWEN_EDGE_HOME``, else ``qwen-edge`` in an XDG folder or in its default under home."""
    environ = os.environ if environ is None else environ
    own = environ.get("QWEN_EDGE_HOME")
    if own:
        return Path(own).expanduser().absolute()
    named = environ.get(variable)
    # The XDG specification has relative paths ignored.
    if named and os.path.isabs(named):
        return Path(named) / "qwen-edge"
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(home) / default / "qwen-edge"


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file of settings; it need not exist."""
    return _folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def models_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of downloaded models; it need not exist."""
    return _folder(environ, "XDG_DATA_HOME", ".local/share") / "models"


def prompts_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of computed system prompts; it need not exist, and may be deleted at any time."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "prompts"


def downloads_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of downloads that are not finished; it need not exist."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "downloads"


def torch_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of what was compiled for torch; it need not exist, and may be deleted."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "torch"


def engine_speeds_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file of the engines' measured speeds; it need not exist, and may be deleted."""
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "engine-speeds.json"


def calibration_file(environ: Mapping[str, str] | None = None) -> Path:
    """The file of threads and cores that were measured; it need not exist."""
    return data_folder(environ) / "calibration.json"


def data_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of conversations and other things to keep; it need not exist."""
    return _folder(environ, "XDG_DATA_HOME", ".local/share")


def wake_lock_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder in which processes mark that they hold the wake lock; it need not exist."""
    return data_folder(environ) / "wake-lock"
