from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.errors import DamagedModelError, MemoryLimitError, ModelNotFoundError, UsageError
from qwen_edge.host.place import Place
from qwen_edge.session import models
from qwen_edge.session.plan import make_plan
from tests.cli.running import tiny_model
from tests.host.recorded import recorded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.qedge")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}


def test_plan_follows_flags_settings_and_device(environ: dict[str, str], model: Path) -> None:
    phone = recorded("redmi_note_9").place
    flags = {"model": str(model), "kv": "f16", "seed": 7, "repetition-penalty": 1.1}
    plan = make_plan(flags, environ | {"QWEN_EDGE_TEMPERATURE": "0"}, place=phone)
    with plan.model:
        assert (plan.engine.threads, plan.engine.prefill_threads) == (2, 8)
        assert (plan.engine.kv_type, plan.engine.context) == ("f16", 1024)
        assert (plan.sampling.temperature, plan.sampling.seed) == (0.0, 7)
        assert (plan.sampling.repetition_penalty, plan.sampling.presence_penalty) == (1.1, 0.0)
        assert plan.budget == plan.profile.available_ram - plan.runtime.reserve
        assert not plan.shared_storage
        assert not plan.found.note_due
        assert plan.facts.weight_bytes == model.stat().st_size


def test_cap_of_a_plan(environ: dict[str, str], model: Path) -> None:
    for cap, budget in (("100MiB", 100 << 20), ("off", None)):
        plan = make_plan({"model": str(model), "memory-cap": cap}, environ)
        with plan.model, plan.memory_cap() as limit:
            assert plan.budget == budget
            assert (limit.limit is None) == (budget is None)


def test_model_comes_from_the_configuration(environ: dict[str, str], model: Path) -> None:
    (Path(environ["QWEN_EDGE_HOME"]) / "config.toml").write_text(f'model = "{model}"\n')
    plan = make_plan({}, environ)
    plan.model.close()
    assert plan.found.path == model


def test_shared_storage_is_noticed(environ: dict[str, str], tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "storage"
    folder.mkdir()
    (folder / "m.qedge").symlink_to(model)
    plan = make_plan({"model": str(folder / "m.qedge")}, environ, place=Place(environ=environ))
    plan.model.close()
    assert plan.shared_storage


def test_failures_leave_no_model_open(environ: dict[str, str], tmp_path: Path, model: Path) -> None:
    cut = tmp_path / "cut.qedge"
    cut.write_bytes(model.read_bytes()[:4000])
    before = len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text().count(".qedge")
    for flags, kind in (
        ({"model": str(cut)}, DamagedModelError),
        ({"model": "none"}, ModelNotFoundError),
        ({"model": str(model), "context": 4096}, UsageError),
        ({"model": str(model), "context": "x"}, UsageError),
        ({"model": str(model), "memory-cap": "10MB"}, MemoryLimitError),
    ):
        with pytest.raises(kind):
            make_plan(flags, environ)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/maps").read_text().count(".qedge") == maps


def test_demo_stands_in_with_a_note(
    environ: dict[str, str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "demo_path", lambda: model)
    plan = make_plan({}, environ)
    plan.model.close()
    assert plan.found == (model, "demo", True)
