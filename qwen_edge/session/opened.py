"""A model that was found, opened in the way its engine takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from qwen_edge.errors import UsageError
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.session.engine_choice import TRANSFORMERS
from qwen_edge.session.models import FOLDER, SUFFIX, FoundModel
from qwen_edge.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qwen_edge.model.checkpoint_folder import CheckpointFolder

Model: TypeAlias = "PackedModel | CheckpointFolder"


def open_found(found: FoundModel, engine: str) -> Model:
    """Opens a model file, or for transformers a checkpoint's folder.

    Raises:
        UsageError: the engine takes the other kind.
        ModelNotFoundError: it is gone, or may not be read.
        DamagedModelError: it cannot be used.
    """
    if found.kind == FOLDER:
        # What reads checkpoints takes a while to import.
        from qwen_edge.model.checkpoint_folder import open_folder

        return open_folder(found.path)
    if engine == TRANSFORMERS:
        raise UsageError(
            "{model} is a {suffix} model; the engine transformers takes a checkpoint's folder.",
            "Make one with `qwen-edge convert {model} --to safetensors`.",
            model=found.path if found.kind == "path" else found.name,
            suffix=SUFFIX,
        )
    return open_model(found.path)


def open_tokenizer(model: Model) -> Tokenizer:
    """The tokenizer of an open model; it must not be used once that is closed.

    Raises:
        DamagedModelError: it is malformed.
    """
    if isinstance(model, PackedModel):
        table = model.tensors[TOKENIZER]
        return Tokenizer.from_blob(model.address(TOKENIZER), table.nbytes, owner=model)
    return Tokenizer.from_bytes(model.tokenizer)
