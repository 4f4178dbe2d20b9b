"""Changed files are read or refused; ``python -m tests.fuzz`` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from tests.fuzz.seeds import Seeds, attempt


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    folder: Path = tmp_path_factory.mktemp("fuzz") / "seeds"
    folder.mkdir()
    return Seeds(folder)


@settings(
    deadline=None, max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 62))
def test_changed_files_are_read_or_refused(seeds: Seeds, seed: int) -> None:
    assert attempt(seeds, seed).endswith((": opened", ": refused"))
