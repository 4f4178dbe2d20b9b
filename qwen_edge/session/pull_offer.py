"""What a source has of the model that the user wants, and how much space it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.host.download import Refusal, Watch
from qwen_edge.host.https import Client
from qwen_edge.host.hub import repository, single_file
from qwen_edge.host.retry import Patience
from qwen_edge.model.checkpoint_config import CONFIG, Preview, preview
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.layout_choice import default_format, usual_format
from qwen_edge.quant.gguf_blocks import BLOCK_TYPES
from qwen_edge.quant.layout import TILE_ROWS, Layout
from qwen_edge.session.models import SHORT_NAMES
from qwen_edge.session.pull_files import CHECKPOINT, READY, Selection, select
from qwen_edge.session.pull_names import OWNER, URL, Wanted

_CONFIG_LIMIT = 8 << 20
_INDEX_LIMIT = 64 << 20
# Tokenizer, norms and header of a model file.
_REST_BYTES = 6_000_000
# By what models made of quantized sources may be larger: ours have scales and minimums for each
# group, and files named for one type have some matrices in another.
_GROWTH = 1.2
_MIXTURE = 1.1


@dataclass(frozen=True)
class Offer:
    """What a source has for the user.

    Attributes:
        wanted: what the user asked for.
        selection: the files to download.
        client: downloads them.
        refusal: makes the error if the source refuses one.
        preview: of a checkpoint, what its config says.
    """

    wanted: Wanted
    selection: Selection
    client: Client
    refusal: Refusal
    preview: Preview | None = None

    @property
    def origin(self) -> str:
        """Names the source in the model file that is made of it."""
        if self.wanted.source == URL or self.selection.kind == CHECKPOINT:
            return self.wanted.origin
        return f"{self.wanted.origin}:{self.selection.files[0].name}"

    @property
    def title(self) -> str:
        """What the model is called, without the kind of its weights where they are to change."""
        if self.selection.kind == CHECKPOINT:
            return self.wanted.name
        return self.selection.files[0].name.rpartition(".")[0]

    def model_bytes(self, bits: int | None, group: int) -> int:
        """About the size of the model file that is made of it.

        Args:
            bits: of the weights, None for the source's own.
            group: columns that share a scale.

        Raises:
            UsageError: there is no such format.
        """
        size = self.selection.size
        if self.selection.kind == READY:
            return size
        if self.preview is not None and (bits is not None or not self.preview.quantized):
            return _packed_bytes(self.preview, bits, group)
        return int(size * _growth(self.selection.files[0].name, bits, group))


def _growth(name: str, bits: int | None, group: int) -> float:
    """Bits of a model over those of the file that it is made of, by the type in the file's name."""
    blocks = [block for block in BLOCK_TYPES.values() if block.name in name.upper()]
    if not blocks:
        return _GROWTH
    block = max(blocks, key=lambda block: len(block.name))
    form = usual_format(block, default_format(bits, group), bits is not None)
    sample = form.layout(TILE_ROWS, max(block.width, 128))
    ours = 8 * sample.nbytes / (sample.rows * sample.cols)
    return _MIXTURE * ours / block.bits


def _packed_bytes(ahead: Preview, bits: int | None, group: int) -> int:
    form = default_format(bits, group)
    layouts = [
        form.layout(*shape) if len(shape) > 1 else Layout("f32", 1, shape[0])
        for shape in tensor_shapes(ahead.config).values()
    ]
    return sum(layout.nbytes for layout in layouts) + _REST_BYTES


def look(wanted: Wanted, environ: Mapping[str, str], patience: Patience, watch: Watch) -> Offer:
    """Asks a source what it has.

    Raises:
        NetworkError: it does not have it, or cannot be reached.
        ModelNotFoundError: the repository holds no model.
        UsageError: it holds several.
        DamagedModelError: it holds one that cannot be converted.
    """
    if wanted.source == URL:
        name = wanted.repo.rpartition("/")[2]
        file, client, refusal = single_file(wanted.url, name, patience, watch)
        files = select(wanted.repo, [file], name, lambda file: b"")
        return Offer(wanted, files, client, refusal)
    source = repository(
        wanted.source,
        wanted.repo,
        wanted.revision,
        environ=environ,
        patience=patience,
        watch=watch,
        address=wanted.address,
        known=[f"{OWNER}/{name}" for name in SHORT_NAMES],
    )
    selection = select(
        wanted.repo, source.files(), wanted.file, lambda file: source.text(file, _INDEX_LIMIT)
    )
    ahead = None
    if selection.kind == CHECKPOINT:
        config = next(file for file in selection.files if file.name == CONFIG)
        # A model that cannot be converted is refused before gigabytes of it are here.
        ahead = preview(Path(wanted.repo), source.text(config, _CONFIG_LIMIT))
    return Offer(wanted, selection, source.client, source.refusal, ahead)
