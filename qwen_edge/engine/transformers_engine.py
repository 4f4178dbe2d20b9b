"""transformers behind the engine's interface: AutoModelForCausalLM, with bitsandbytes if asked for.

The model is the library's own, loaded from a local folder as articles describe it, so that it can
serve as baseline and as oracle; sampling, stopping and statistics are this program's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers import DynamicCache

# Imported by from_pretrained otherwise, when memory may be capped already.
from transformers.models.qwen3 import modeling_qwen3  # noqa: F401

from qwen_edge.engine.interface import EngineConfig, Logits, Row
from qwen_edge.engine.quiet import quiet
from qwen_edge.engine.token_ids import TokenIds
from qwen_edge.engine.torch_memory import is_memory_error, torch_memory_errors
from qwen_edge.errors import DamagedModelError, MemoryLimitError, QwenEdgeError, UsageError
from qwen_edge.model.checkpoint_folder import CheckpointFolder, Quantization
from qwen_edge.model.closing import Closing
from qwen_edge.model.config import ModelConfig

# Some of its types are wrong, others there are in some of its versions only.
_library: Any = transformers
_FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_BF16_SWITCH = "support_avx512bf16_for_cpu"
_TALKATIVE = ("transformers", "bitsandbytes", "accelerate", "huggingface_hub")


class TransformersEngine(Closing):
    """An ``Engine`` over transformers; use it as a context manager.

    Keys and values are kept in the type of the model's floats; ``EngineConfig.kv_type`` and
    ``activations`` have no say. With ``keep_cache=False`` the model runs with ``use_cache=False``
    over the whole sequence in one call.

    Args:
        folder: the checkpoint.
        config: see ``EngineConfig``.
        weights: ``bf16`` or ``f32``, or ``nf4``, ``fp4``, ``int8`` of bitsandbytes; a checkpoint
            that is quantized already is taken as it is.
        double_quant: whether the scales of 4-bit weights are quantized in turn.

    Raises:
        DamagedModelError: transformers cannot make a model of the folder.
        MemoryLimitError: there is no memory for it.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        config: EngineConfig,
        weights: str = "bf16",
        *,
        double_quant: bool = False,
    ) -> None:
        self.config = config
        self.vocab_size = folder.config.vocab_size
        self._model: Any = _load(folder, weights, double_quant=double_quant)
        self._ids = TokenIds(config, self.vocab_size)
        self._caches: list[Any] = [DynamicCache() for _ in range(config.sequences)]
        self._logits = torch.empty(0)

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """See ``Engine.forward``."""
        if self._model is None:
            raise UsageError("The engine is closed.")
        self._ids.check(rows)
        by_sequence: dict[int, list[Row]] = {}
        for row in rows:
            by_sequence.setdefault(row.sequence, []).append(row)
        one = len(rows) == 1
        _use_threads(self.config.threads if one else self.config.prefill_threads)
        found: dict[int, torch.Tensor] = {}
        with _quiet(), torch_memory_errors(), torch.inference_mode():
            for sequence, own in by_sequence.items():
                found[sequence] = self._compute(sequence, own)
            # In row order, although each sequence was computed on its own.
            places = {sequence: iter(logits) for sequence, logits in found.items()}
            wanted = [next(places[row.sequence]) for row in rows if row.wants_logits]
            self._logits = torch.stack(wanted).float().contiguous() if wanted else torch.empty(0)
        self._ids.append(rows)
        start, size = self._logits.data_ptr(), self.vocab_size
        return [Logits(start + 4 * size * i, size) for i in range(len(wanted))]

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """See ``Engine.cached_ids``."""
        return self._ids[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """See ``Engine.truncate``."""
        self._ids.truncate(length, sequence)
        self._trim(sequence)

    def fork(self, source: int, target: int, length: int) -> None:
        """See ``Engine.fork``."""
        self._ids.fork(source, target, length)
        if source == target:
            self._trim(target)
            return
        self._caches[target] = cache = DynamicCache()
        # Keys and values are never written in place, so that both may share them.
        for index, layer in enumerate(self._caches[source].layers):
            if length and layer.get_seq_length():
                cache.update(layer.keys[..., :length, :], layer.values[..., :length, :], index)

    def close(self) -> None:
        """See ``Engine.close``."""
        self._model = None
        self._caches = []
        self._logits = torch.empty(0)

    def _compute(self, sequence: int, rows: Sequence[Row]) -> torch.Tensor:
        """Logits [wanted, vocab] of rows of one sequence."""
        self._trim(sequence)
        ids = [row.token for row in rows]
        wanted = [i for i, row in enumerate(rows) if row.wants_logits]
        if not self.config.keep_cache:
            if not wanted:
                return torch.empty(0, self.vocab_size)
            before = self._ids[sequence]
            ids = before + ids
            wanted = [len(before) + i for i in wanted]
        output = self._model(
            input_ids=torch.tensor([ids]),
            past_key_values=self._caches[sequence] if self.config.keep_cache else None,
            use_cache=self.config.keep_cache,
            logits_to_keep=torch.tensor(wanted, dtype=torch.int64),
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _trim(self, sequence: int) -> None:
        """Cuts off what a call that failed or was interrupted left in some of the layers."""
        cache, length = self._caches[sequence], len(self._ids[sequence])
        if length == 0:
            self._caches[sequence] = DynamicCache()
            return
        for layer in cache.layers:
            excess = layer.get_seq_length() - length
            if excess > 0:
                layer.crop(-excess)


def load_quietly() -> None:
    """Imports bitsandbytes, which tells of kernels that it does not find."""
    with _quiet():
        import bitsandbytes  # noqa: F401


def _load(folder: CheckpointFolder, weights: str, *, double_quant: bool) -> Any:
    settings: dict[str, Any] = {"dtype": _FLOATS["f32" if weights == "f32" else "bf16"]}
    config = _config(folder.config)
    if folder.quantized is not None:
        settings["dtype"] = _FLOATS[folder.floats]
        config.quantization_config = _bitsandbytes(folder.quantized).to_dict()
    elif weights not in _FLOATS:
        wanted = Quantization(weights, double_quant, "bf16", None)
        settings["quantization_config"] = _bitsandbytes(wanted)
    with _quiet(), torch_memory_errors():
        try:
            model, report = _library.AutoModelForCausalLM.from_pretrained(
                str(folder.path),
                config=config,
                generation_config=_library.GenerationConfig(),
                low_cpu_mem_usage=True,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="sdpa",
                output_loading_info=True,
                **settings,
            )
        except (MemoryError, MemoryLimitError, QwenEdgeError):
            raise
        except Exception as error:
            if is_memory_error(error):
                raise
            # Of what the folder holds, every part was checked; what is left is transformers' own.
            raise _refused(folder, str(error).partition("\n")[0]) from error
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = [str(name) for name in report.get(key) or ()]
        if names:
            raise _refused(folder, f"{key.replace('_', ' ')}: {', '.join(sorted(names)[:3])}")
    _keep_to_compute_type(model)
    return model.eval()


def _keep_to_compute_type(model: Any) -> None:
    """Has 4-bit matrices multiplied in the type that was asked for.

    Where the processor multiplies bf16, bitsandbytes does that even if fp32 was asked for, with
    scales rounded to bf16: results are off by a percent then.
    """
    for module in model.modules():
        asked = getattr(module, "compute_dtype", None)
        if asked not in (None, torch.bfloat16) and hasattr(module, _BF16_SWITCH):
            setattr(module, _BF16_SWITCH, False)


def _refused(folder: CheckpointFolder, reason: str) -> DamagedModelError:
    return DamagedModelError(
        "transformers cannot load the checkpoint {path}: {reason}.",
        "The native engine may: `qwen-edge convert {path}`.",
        path=folder.path,
        reason=reason.rstrip("."),
    )


def _config(config: ModelConfig) -> Any:
    """transformers' description of the model; nothing of config.json but the checked numbers."""
    return _library.Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        tie_word_embeddings=config.tied,
        bos_token_id=None,
        eos_token_id=None,
    )


def _bitsandbytes(wanted: Quantization) -> Any:
    skipped = None if wanted.skipped is None else list(wanted.skipped)
    if wanted.kind == "int8":
        return _library.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return _library.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=wanted.kind,
        bnb_4bit_use_double_quant=wanted.double,
        bnb_4bit_compute_dtype=_FLOATS[wanted.compute],
        llm_int8_skip_modules=skipped,
    )


def _use_threads(threads: int) -> None:
    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' warnings and progress bars off the terminal."""
    bars = _library.utils.logging
    shown = bars.is_progress_bar_enabled()
    with quiet(*_TALKATIVE):
        bars.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                bars.enable_progress_bar()
