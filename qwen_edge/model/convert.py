"""Any source to ``.qedge``, tensor by tensor and slice by slice: little memory, no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qwen_edge.errors import DamagedModelError, UsageError
from qwen_edge.model.calibrated import method_within, walk
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.config import ORDERED, layer_orders
from qwen_edge.model.conversion import Conversion, Progress, summarize
from qwen_edge.model.convert_tensors import TensorConverter
from qwen_edge.model.gguf import open_gguf
from qwen_edge.model.layout_choice import (
    Override,
    choose_layouts,
    is_held,
    main_format,
    rounded,
)
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.packed_writer import Description, PackedWriter
from qwen_edge.model.source import Source
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.methods import METHODS, calibration_text


def convert(
    path: Path,
    output: Path,
    *,
    bits: int | None = None,
    group: int = 32,
    codebook: str = "int4",
    overrides: Sequence[Override] = (),
    adapters: Sequence[tuple[Path, float]] = (),
    method: str = "nearest",
    calibration: str | None = None,
    memory: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    name: str | None = None,
    origin: str | None = None,
    tokenizer: bytes | None = None,
) -> Conversion:
    """Converts a dense Qwen3 model.

    Args:
        path: a Hugging Face folder with config.json, tokenizer.json and safetensors weights, or
            a GGUF file.
        output: the file to make; replaced only when the new one is complete.
        bits: of the weight matrices: 4, 8, or 16 for bf16. None takes quantized matrices over as
            they are, or in the nearest format, and floats to 4 bits. A matrix that is held in no
            more bits than asked for is always taken over as it is.
        group: columns that share a scale: 32, 64 or 128.
        codebook: what 4-bit codes stand for, one of ``CODEBOOKS``.
        overrides: pairs of a pattern for tensor names (``*`` and ``?``) and the format for the
            matrices that match it; the first match counts. ``model.`` and ``.weight`` may be left
            out, and all but the last part of a name; a tied embedding is ``lm_head``, too.
        adapters: LoRA adapters to merge first, in this order, each with a factor for its scale.
        method: how weights are rounded, one of ``METHODS``.
        calibration: a text whose activations the methods other than ``nearest`` go by, in place of
            the one that comes with the package.
        memory: the most bytes that the method may take; one that takes more gives way to
            ``aware``, and that to ``nearest``.
        threads: 0 for all cores.
        progress: called with the source's bytes before each slice, and at the end with an empty
            name.
        name: what the model is called, by default the source's name.
        origin: where the source comes from, by default what its path tells.
        tokenizer: a packed tokenizer to use in place of the source's.

    Raises:
        UsageError: a format or method is not offered, or an override fits nothing.
        ModelNotFoundError: there is no such source.
        DamagedModelError: the source is malformed or unsupported.
        QwenEdgeError: the output cannot be written.
    """
    check_method(method)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(path))
        source = _merge(source, adapters, threads, stack)
        layouts = choose_layouts(source, bits, group, codebook, overrides)
        blob = pack_source_tokenizer(source) if tokenizer is None else tokenizer
        origin = _printable(origin) if origin else origin_of(path)
        description = Description(
            name=_printable(name or origin.rpartition("/")[2].removesuffix(".gguf")),
            config=source.config,
            generation=source.generation,
            chat_template=source.chat_template,
            source=origin,
        )
        orders, needed = _orders(source), rounded(source, layouts)
        if orders or not needed:
            # The walk has activations in their own order only, and a cost that must be worth it.
            method = "nearest"
        asked, ids = method, []
        if method != "nearest":
            ids = _token_ids(blob, calibration_text() if calibration is None else calibration)
            method = method_within(memory, source.config, method, len(ids))
        tensors = {**layouts, TOKENIZER: Layout("u8", 1, len(blob))}
        tensors |= {name: Layout("u8", 1, len(order)) for name, order in orders.items()}
        with PackedWriter(output, description, tensors) as writer:
            writer.write(TOKENIZER, blob)
            for name, order in orders.items():
                writer.write(name, order)
            converted = TensorConverter(source, layouts, writer, threads, progress)
            if method == "nearest":
                for tensor in layouts:
                    converted.convert(tensor)
            else:
                walk(source, ids, method, needed, converted.convert, threads)
            converted.finish()
            errors = converted.errors
            kept = sum(is_held(source.tensors[name], layouts[name]) for name in errors)
            result = replace(
                summarize(output, writer.size, errors, kept),
                method=method,
                too_large=asked if asked != method else "",
            )
            writer.finish(_notes(layouts, result, method, adapters))
    return result


def check_method(method: str) -> None:
    """Refuses a method that there is not."""
    if method not in METHODS:
        raise UsageError(
            "There is no method {method}.",
            "Methods are {methods}.",
            method=method,
            methods=", ".join(METHODS),
        )


def stored_bits(path: Path, bits: int | None = None) -> int:
    """Bits that most weights of a source will have; takes and raises what ``convert`` does."""
    with open_source(path) as source:
        return main_format(choose_layouts(source, bits, 32))[0]


def open_source(path: Path) -> Source:
    """Opens whatever can be converted; raises as ``convert`` does."""
    return open_gguf(path) if path.is_file() else open_checkpoint(path)


def _merge(
    source: Source,
    adapters: Sequence[tuple[Path, float]],
    threads: int,
    stack: contextlib.ExitStack,
) -> Source:
    if not adapters:
        return source
    from qwen_edge.model.adapter import open_adapter
    from qwen_edge.model.merge import merged

    opened = [
        (stack.enter_context(open_adapter(path, source.config)), scale) for path, scale in adapters
    ]
    return merged(source, opened, threads)


def pack_source_tokenizer(source: Source) -> bytes:
    """A source's tokenizer as model files hold it.

    Raises:
        DamagedModelError: it is malformed, unsupported, or larger than the embedding.
    """
    # Slow to import, and only conversions need it.
    from qwen_edge.text.pack_tokenizer import pack_tokenizer

    blob = pack_tokenizer(source.tokenizer_json())
    from qwen_edge.text.tokenizer import Tokenizer

    size = Tokenizer.from_bytes(blob).vocab_size
    if size > source.config.vocab_size:
        raise DamagedModelError(
            "The checkpoint {path} cannot be used: its tokenizer has {tokens} tokens and its "
            "embedding {rows} rows.",
            "Download the checkpoint again.",
            path=source.path,
            tokens=size,
            rows=source.config.vocab_size,
        )
    return blob


def _token_ids(blob: bytes, text: str) -> list[int]:
    from qwen_edge.text.tokenizer import Tokenizer

    ids = Tokenizer.from_bytes(blob).encode(text, allow_special=True)
    if not ids:
        raise UsageError("The calibration text is empty.")
    return ids


def origin_of(directory: Path) -> str:
    """The source's name, or the repository's if it lies in the cache of huggingface_hub."""
    path = directory.resolve()
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return _printable(repository.removeprefix("models--").replace("--", "/"))
    return _printable(path.name)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:200]


def _orders(source: Source) -> dict[str, bytes]:
    """The column orders that the file has to hold, by their names in it."""
    orders: dict[str, bytes] = {}
    for layer in range(source.config.layers):
        for name, parts in zip(layer_orders(layer), ORDERED.values(), strict=True):
            own = {source.tensors[f"model.layers.{layer}.{part}.weight"].order for part in parts}
            if len(own) > 1:
                raise ValueError(f"the matrices of {name} are in different orders")
            order = own.pop()
            if order is not None:
                orders[name] = order
    return orders


def _notes(
    layouts: Mapping[str, Layout],
    result: Conversion,
    name: str,
    adapters: Sequence[tuple[Path, float]],
) -> dict[str, object]:
    bits, group = main_format(layouts)
    method = METHODS[name] if bits < 16 else "rounded"
    if result.kept:
        method = "taken over" if result.kept == result.matrices else f"taken over; {method}"
    merged = [f"{_printable(path.resolve().name)} x {scale:g}" for path, scale in adapters]
    return {
        **({"merged": ", ".join(merged)} if merged else {}),
        "bits": bits,
        "group": group,
        "method": method,
        "error": result.error.as_dict(),
        "worst": {"tensor": result.worst_name, **result.worst_error.as_dict()},
    }
