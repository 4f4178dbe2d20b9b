"""Run INT4 Qwen3 models on the CPU, offline: ``llm = qwen_edge.load("demo")``."""

__version__ = "0.1.0"
