"""An engine that is asked nothing uses no processor. Processor time is what is counted."""

from __future__ import annotations

import pytest

from benchmarks.idle import wait
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_between_answers(threads: int) -> None:
    with open_model(demo_path()) as model:
        (found,) = wait(model, threads, repeats=1, seconds=1.0)
    assert found.idle_share < 0.01
    # Workers spin for some 20 microseconds each; what is above that is the test's own.
    assert found.after_call < 5000
