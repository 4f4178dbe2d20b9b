"""Hatchling hook: compiles the native library into the wheel and tags it for the platform."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds ``libqwen_edge.so`` to wheels; the sdist carries the sources alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        native = Path(self.root) / "qwen_edge" / "native"
        spec = importlib.util.spec_from_file_location("native_build", native / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.build(native / module.LIBRARY_NAME)
        except module.CompilerError as error:
            sys.exit(str(error))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(f"qwen_edge/native/{module.LIBRARY_NAME}")
