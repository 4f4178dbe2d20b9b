from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.cli import doctor
from qwen_edge.cli.doctor_table import as_table
from qwen_edge.host.place import Place
from qwen_edge.session.diagnosis import diagnose
from qwen_edge.session.footprint import facts_of, predict_peak
from qwen_edge.session.plan import engine_config
from tests.cli.program import environment
from tests.cli.running import run, tiny_model, too_long_lines
from tests.host.recorded import recorded, recorded_names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny.qedge")


def findings(table: dict[str, object]) -> str:
    found = table["findings"]
    assert isinstance(found, list)
    return " | ".join(f"{item['severity']}: {item['sentence']}" for item in found)


def test_report_names_every_part(tmp_path: Path, model: Path) -> None:
    result = run("doctor", "--model", model, home=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    for name in (
        "Processor",
        "Memory",
        "Python",
        "Kernels",
        "Compiler",
        "torch",
        "Model",
        "Storage",
    ):
        assert f"\n{name} " in f"\n{result.stdout}"
    for name in ("context", "threads", "Predicted peak", "Recommended", "QWEN_EDGE_ISA", "scalar"):
        assert name in result.stdout
    assert str(model) in result.stdout.replace("\n", " ")


def test_json_has_the_facts(tmp_path: Path, model: Path) -> None:
    result = run("doctor", "--json", "-m", model, home=tmp_path, QWEN_EDGE_CONTEXT="512")
    table = json.loads(result.stdout)
    assert table["python"]["executable"] == sys.executable
    assert table["memory"]["total"] > table["memory"]["available"] > 0
    assert table["processor"]["cores"] >= 1
    assert table["kernels"]["in_use"] in table["kernels"]["available"]
    assert "scalar" in table["kernels"]["available"]
    assert table["model"]["bytes"] == model.stat().st_size
    assert table["model"]["bits"] == 4
    assert table["configuration"]["context"] == 512
    origin = {line["key"]: line["origin"] for line in table["settings"]}
    assert origin["context"] == "environment QWEN_EDGE_CONTEXT"
    assert origin["kv"] == "adaptive default"
    peak = table["predicted_peak"]
    assert 0 < peak["short"] < peak["full"] <= table["allowed"]
    assert not [item for item in table["findings"] if item["severity"] == "error"]


def test_bug_report_goes_to_a_file_or_to_the_terminal(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "report.json"
    result = run("doctor", "--report", file, "-m", model, home=tmp_path)
    assert result.returncode == 0
    assert result.stdout == ""
    assert "look through it" in result.stderr
    written = json.loads(file.read_text())
    printed = run("doctor", "--report", "-", "-m", model, home=tmp_path)
    assert printed.stderr == ""
    shown = json.loads(printed.stdout)
    assert shown.keys() == written.keys()
    for report in (shown, written):
        assert report["configuration"]["predicted_peak"] <= report["allowed"]
        assert report["findings"] == []
        assert str(tmp_path) not in json.dumps(report)


def test_bug_report_that_cannot_be_written_is_an_error(tmp_path: Path, model: Path) -> None:
    result = run("doctor", "--report", tmp_path, "-m", model, home=tmp_path)
    assert result.returncode == 1
    assert "is a folder" in result.stderr
    both = run("doctor", "--report", "-", "--json", home=tmp_path)
    assert both.returncode == 2
    assert "do not go together" in both.stderr


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_report_fits_the_terminal(tmp_path: Path, model: Path, columns: str) -> None:
    result = run("doctor", "-m", model, home=tmp_path, COLUMNS=columns)
    assert result.returncode == 0
    assert too_long_lines(result.stdout, int(columns)) == []


def test_library_that_does_not_load_is_reported(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF nothing")
    for library in (broken, tmp_path / "absent.so"):
        variables = {"QWEN_EDGE_LIBRARY": str(library)}
        result = run("doctor", "--json", "-m", model, home=tmp_path, **variables)
        assert result.returncode == 0, result.stderr
        table = json.loads(result.stdout)
        assert table["kernels"] is None
        assert len([item for item in table["findings"] if item["severity"] == "error"]) == 1
        assert "does not load" in findings(table)
        assert table["configuration"]["context"] >= 256
        shown = run("doctor", home=tmp_path, QWEN_EDGE_LIBRARY=str(library))
        assert shown.returncode == 0
        assert "does not load" in shown.stdout


def test_library_without_our_functions_is_reported(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "other.c"
    source.write_text(
        "int qe_abi_version(void) { return 1; } char* qe_last_error(void) { return 0; }"
    )
    library = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    result = run("doctor", "--json", "-m", model, home=tmp_path, QWEN_EDGE_LIBRARY=str(library))
    assert result.returncode == 0
    assert "native library" in findings(json.loads(result.stdout))


def test_instruction_set_that_cannot_be_forced_is_reported(tmp_path: Path) -> None:
    result = run("doctor", "--json", home=tmp_path, QWEN_EDGE_ISA="nonsense")
    assert result.returncode == 0
    table = json.loads(result.stdout)
    assert "nonsense" in findings(table)
    assert "scalar" in table["kernels"]["available"]
    forced = json.loads(run("doctor", "--json", home=tmp_path, QWEN_EDGE_ISA="scalar").stdout)
    assert forced["kernels"]["in_use"] == "scalar"


def test_damaged_and_missing_models_are_reported(tmp_path: Path, model: Path) -> None:
    cut = tmp_path / "cut.qedge"
    cut.write_bytes(model.read_bytes()[:5000])
    noise = tmp_path / "noise.qedge"
    noise.write_bytes(b"\xff" * 5000)
    for path in (cut, noise, tmp_path / "none.qedge", tmp_path):
        result = run("doctor", "--json", "-m", path, home=tmp_path)
        assert result.returncode == 0
        table = json.loads(result.stdout)
        assert "error" in findings(table)
        assert table["assumed_model"] == "Qwen3-0.6B"
        assert table["configuration"]["model"] == "Qwen3-0.6B"
        assert run("doctor", "-m", path, home=tmp_path).returncode == 0


def test_bad_settings_are_reported(tmp_path: Path, model: Path) -> None:
    (tmp_path / "qe").mkdir()
    (tmp_path / "qe" / "config.toml").write_text("contxt = 1\n")
    result = run("doctor", "--json", "-m", model, home=tmp_path, QWEN_EDGE_NONSENSE="1")
    assert result.returncode == 0
    table = json.loads(result.stdout)
    assert "no setting contxt" in findings(table)
    assert "QWEN_EDGE_NONSENSE is set" in findings(table)
    assert table["model"]["path"] == str(model)


def test_too_little_memory_is_reported_with_the_numbers(tmp_path: Path, model: Path) -> None:
    result = run("doctor", "-m", model, home=tmp_path, QWEN_EDGE_MEMORY_CAP="20MB")
    assert result.returncode == 0
    assert "needs" in result.stdout
    assert "--memory-cap" in result.stdout


def test_neither_torch_nor_numpy_is_imported(tmp_path: Path, model: Path) -> None:
    script = (
        "import sys; from qwen_edge.cli.app import run_program\n"
        f"code = run_program(['doctor', '--json', '-m', {str(model)!r}])\n"
        "heavy = {'torch', 'numpy', 'psutil', 'jinja2', 'rich'} & set(sys.modules)\n"
        "print(code, sorted(heavy), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path / "qe"), check=True
    )
    assert result.stderr == "0 []\n"


@pytest.mark.parametrize("compiler", ["", "'"])
def test_missing_compiler_is_a_note(tmp_path: Path, model: Path, compiler: str) -> None:
    result = run("doctor", "--json", "-m", model, home=tmp_path, PATH="/nonexistent", CXX=compiler)
    assert result.returncode == 0
    table = json.loads(result.stdout)
    assert table["compiler"] is None
    assert findings(table).startswith("note: There is no C++ compiler")


@pytest.mark.parametrize("name", recorded_names())
def test_recorded_devices(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = recorded(name)
    result = diagnose({}, {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}, device.place)
    table = json.loads(json.dumps(as_table(result), default=str))
    assert table["memory"]["total"] == device.expected["total"]
    assert table["processor"]["big_cores"] == device.expected["big_cores"]
    assert table["configuration"] is None or (
        table["configuration"]["tier"] == device.expected["tier"]
        and table["configuration"]["threads"] == device.expected["big_cores"]
        and table["predicted_peak"]["full"] <= table["allowed"]
    )
    assert ("under proot" in findings(table)) == device.expected["proot"]
    assert ("does not tell its memory" in findings(table)) == (device.expected["total"] is None)
    monkeypatch.setattr(doctor, "diagnose", lambda flags: result)
    monkeypatch.setenv("COLUMNS", "40")
    doctor.doctor_command(model=None, as_json=False)
    assert too_long_lines(capsys.readouterr().out, 40) == []


def test_model_on_shared_storage_is_warned_of(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "storage" / "downloads"
    folder.mkdir(parents=True)
    copy = folder / "tiny.qedge"
    copy.write_bytes(model.read_bytes())
    place = Place(environ={"HOME": str(tmp_path)})
    environ = {"QWEN_EDGE_HOME": str(tmp_path)}
    shared = diagnose({"model": str(copy)}, environ, place)
    assert "shared storage" in findings(as_table(shared))
    private = diagnose({"model": str(model)}, environ, place)
    assert "shared storage" not in findings(as_table(private))


def test_prediction_is_the_selections_own(tmp_path: Path, model: Path) -> None:
    from qwen_edge.model.packed import open_model

    result = diagnose({"model": str(model)}, {"QWEN_EDGE_HOME": str(tmp_path)})
    assert result.runtime is not None
    with open_model(model) as opened:
        facts = facts_of(opened)
    engine = engine_config(result.runtime)
    assert result.runtime.predicted_peak == predict_peak(facts, engine)
    assert result.short_peak == predict_peak(facts, engine, 256)
    assert predict_peak(facts, replace(engine, kv_type="f16")) >= predict_peak(facts, engine)
