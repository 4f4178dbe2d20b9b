"""Run INT4 Qwen3 models on the CPU, offline: ``llm = qwen_edge.load("demo")``.

Importing this package imports nothing else; see ``qwen_edge.api`` for what ``load`` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_edge.api import LLM, ChatAnswer, load

__all__ = ["LLM", "ChatAnswer", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        from qwen_edge import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
