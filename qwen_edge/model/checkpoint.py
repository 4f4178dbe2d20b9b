"""Hugging Face checkpoint folders: config, generation defaults, template, tokenizer, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.chatml import CHATML
from qwen_edge.model.checkpoint_config import CONFIG, generation_defaults, model_config
from qwen_edge.model.checkpoint_files import damaged, read_file, read_json
from qwen_edge.model.checkpoint_tensors import model_tensors
from qwen_edge.model.safetensors_reader import SafetensorsReader
from qwen_edge.model.source import Source


@dataclass(frozen=True)
class Checkpoint(Source):
    """An open checkpoint folder; see ``Source``."""

    reader: SafetensorsReader

    def tokenizer_json(self) -> bytes:
        """Reads ``tokenizer.json``.

        Raises:
            DamagedModelError: it is missing or cannot be read.
        """
        data = read_file(self.path / "tokenizer.json")
        if data is None:
            raise DamagedModelError(
                "The checkpoint {path} has no tokenizer.json.",
                "Download the whole checkpoint; vocab.json and merges.txt alone are not read.",
                path=self.path,
            )
        return data

    def close(self) -> None:
        """Unmaps the weights."""
        self.reader.close()


def open_checkpoint(directory: Path) -> Checkpoint:
    """Opens a checkpoint folder and checks that it is a dense Qwen3 model, complete.

    Raises:
        ModelNotFoundError: there is no such folder, or nothing in it.
        DamagedModelError: it is malformed, incomplete or of an unsupported kind.
    """
    if not directory.is_dir():
        raise ModelNotFoundError(
            "There is no checkpoint folder {path}.",
            "It is what `huggingface-cli download` makes: a folder with config.json.",
            path=directory,
        )
    table = read_json(directory / CONFIG)
    if table is None:
        raise ModelNotFoundError(
            "The folder {path} has no config.json.",
            "A checkpoint needs config.json, tokenizer.json and safetensors weights.",
            path=directory,
        )
    config = model_config(directory, table)
    settings = read_json(directory / "generation_config.json") or {}
    generation = generation_defaults(directory, table, settings, config.vocab_size)
    template = _chat_template(directory)
    reader = SafetensorsReader(directory)
    try:
        tensors = model_tensors(directory, config, table, reader.tensors)
        return Checkpoint(directory, config, generation, template, tensors, reader)
    except BaseException:
        reader.close()
        raise


def _chat_template(directory: Path) -> str:
    path = directory / "chat_template.jinja"
    data = read_file(path)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise damaged(path, "it is not UTF-8") from None
    settings = read_json(directory / "tokenizer_config.json") or {}
    template = settings.get("chat_template")
    if isinstance(template, Sequence) and not isinstance(template, str):
        named = [item for item in template if isinstance(item, dict)]
        template = next((i.get("template") for i in named if i.get("name") == "default"), None)
    return template if isinstance(template, str) else CHATML
