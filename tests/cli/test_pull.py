from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.model.packed import open_model
from tests.cli.program import PROGRAM, environment, terminal
from tests.cli.running import TINY, run, tiny_model
from tests.cli.test_convert import write_checkpoint
from tests.host.hub_server import Fault, HubServer, hub_server

CONFIG = replace(TINY, hidden_size=64, vocab_size=151936)
REPO = "Owner/Tiny-Qwen"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Qwen", CONFIG)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(checkpoint: dict[str, bytes]) -> Iterator[HubServer]:
    with hub_server() as server:
        server.files |= checkpoint
        server.files |= {"README.md": b"# Tiny", "onnx/model.onnx": bytes(9000), "x.bin": b"x"}
        yield server


def pull(
    hub: HubServer, home: Path, *arguments: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    return run("pull", *arguments, home=home, **({"HF_ENDPOINT": hub.url} | variables))


def model_file(home: Path, name: str = "Tiny-Qwen-int4") -> Path:
    return home / "qe" / "models" / f"{name}.qedge"


def downloads(home: Path) -> list[Path]:
    return sorted(path for path in (home / "qe" / "downloads").rglob("*") if path.is_file())


def test_a_model_is_downloaded_converted_and_answers(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{model_file(tmp_path)}\n"
    assert "weights are off by" in result.stderr
    with open_model(model_file(tmp_path)) as model:
        assert model.config == CONFIG
        assert (model.name, model.source) == ("Tiny-Qwen", REPO)
    # The sources are gone, and nothing was fetched that is not needed.
    assert downloads(tmp_path) == []
    assert not hub.asked("README") + hub.asked("onnx/") + hub.asked("x.bin")
    answer = run("run", "-m", "tiny-qwen", "--raw", "-n", "3", "--json", "hello", home=tmp_path)
    assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 3


def test_weights_of_an_older_tool_are_found(hub: HubServer, tmp_path: Path) -> None:
    name = "gptq_model-4bit-128g.safetensors"
    hub.files[name] = hub.files.pop(WEIGHTS)
    # What is left of an earlier version would be another file of weights.
    result = pull(hub, tmp_path, REPO, "--keep-source")
    assert result.returncode == 0, result.stderr
    assert model_file(tmp_path).exists()
    (folder,) = {path.parent for path in downloads(tmp_path) if path.name == name}
    (folder / name).rename(folder / "gptq_model-4bit-64g.safetensors")
    result = pull(hub, tmp_path, REPO, "--force")
    assert result.returncode == 0, result.stderr
    assert downloads(tmp_path) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_pickled_weights_are_refused_before_they_are_fetched(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    hub.files[name] = hub.files.pop(WEIGHTS)
    del hub.files["x.bin"]
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 3
    assert f"The weights in {REPO} are pickled ({name})" in result.stderr
    assert not hub.asked(name)
    assert downloads(tmp_path) == []


def test_a_second_pull_does_nothing(hub: HubServer, tmp_path: Path) -> None:
    assert pull(hub, tmp_path, REPO).returncode == 0
    before = model_file(tmp_path).stat()
    hub.requests.clear()
    result = pull(hub, tmp_path, REPO)
    assert (result.returncode, result.stdout) == (0, f"{model_file(tmp_path)}\n")
    assert "here already" in result.stderr
    assert not hub.requests
    result = pull(hub, tmp_path, REPO, "--force")
    assert result.returncode == 0
    assert model_file(tmp_path).stat().st_mtime_ns != before.st_mtime_ns
    assert hub.asked(WEIGHTS)


def test_the_options_of_a_conversion(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "my.qedge"
    result = pull(hub, tmp_path, REPO, "--bits", 8, "--group", 64, "--name", "mine", "-o", target)
    assert (result.returncode, result.stdout) == (0, f"{target}\n"), result.stderr
    with open_model(target) as model:
        assert model.name == "mine"
        assert (model.quantization["bits"], model.quantization["group"]) == (8, 64)
    assert "here already" in pull(hub, tmp_path, REPO, "-o", target, "--group", "64").stderr
    assert pull(hub, tmp_path, REPO, "--name", "other", "--bits", 8).returncode == 0
    assert model_file(tmp_path, "other-int8").is_file()


def test_the_sources_can_be_kept_and_used_again(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, REPO, "--keep-source")
    assert "is kept in" in result.stderr
    folder = tmp_path / "qe" / "downloads" / "huggingface--Owner--Tiny-Qwen"
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    hub.requests.clear()
    assert pull(hub, tmp_path, REPO, "--bits", "8").returncode == 0
    # The listing and a look at the config, but no file.
    assert not hub.asked(WEIGHTS)
    assert not hub.asked("tokenizer.json")


def test_shards_are_those_of_the_index(hub: HubServer, tmp_path: Path) -> None:
    from tests.model.files import write_checkpoint as write_sharded

    write_sharded(tmp_path / "sharded", replace(CONFIG, vocab_size=512), shards=3)
    hub.files = {"tokenizer.json": b"", **hub.files}
    del hub.files[WEIGHTS]
    for path in (tmp_path / "sharded").iterdir():
        hub.files[path.name] = path.read_bytes()
    hub.files["config.json"] = (tmp_path / "sharded" / "config.json").read_bytes()
    hub.files["model-of-another-kind.safetensors"] = bytes(9000)
    result = pull(hub, tmp_path, REPO)
    # Its tokenizer is larger than its embedding, which only the conversion finds out.
    assert result.returncode == 5
    assert "embedding" in result.stderr
    assert len(hub.asked("-of-00003.safetensors")) == 3
    assert not hub.asked("another-kind")
    assert "are kept in" in result.stderr


def test_model_scope(hub: HubServer, tmp_path: Path) -> None:
    result = pull(
        hub, tmp_path, REPO, "--source", "modelscope",
        HF_ENDPOINT="https://127.0.0.1:9", MODELSCOPE_DOMAIN=hub.url,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert model_file(tmp_path).is_file()
    assert {request.path.split("?")[0] for request in hub.requests} == {
        f"/api/v1/models/{REPO}/repo/files",
        f"/api/v1/models/{REPO}/repo",
    }


def test_a_page_address_and_a_revision(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, f"https://huggingface.co/{REPO}/tree/v1")
    assert result.returncode == 0, result.stderr
    assert hub.asked(f"/{REPO}/resolve/v1/{WEIGHTS}")
    with open_model(model_file(tmp_path)) as model:
        assert model.source == f"{REPO}@v1"
    # Another revision is another model, which does not take the first one's place unasked.
    result = pull(hub, tmp_path, REPO, "--revision", "v2")
    assert result.returncode == 2
    assert "another model" in result.stderr
    assert pull(hub, tmp_path, REPO, "--revision", "v2", "--name", "two").returncode == 0


def test_a_ready_model_is_taken_as_it_is(hub: HubServer, tmp_path: Path) -> None:
    ready = tiny_model(tmp_path / "made" / "ready.qedge").read_bytes()
    hub.files = {"small.qedge": ready, "README.md": b"x"}
    result = pull(hub, tmp_path, REPO)
    assert (result.returncode, result.stdout) == (0, f"{model_file(tmp_path, 'small')}\n")
    assert model_file(tmp_path, "small").read_bytes() == ready
    assert downloads(tmp_path) == []
    hub.requests.clear()
    assert "here already" in pull(hub, tmp_path, REPO).stderr
    assert not hub.asked("small.qedge")
    # By its address too, and under another name.
    url = f"{hub.url}/cdn/small.qedge"
    result = pull(hub, tmp_path, url, "--name", "other", HF_ENDPOINT="")
    assert result.returncode == 0, result.stderr
    assert model_file(tmp_path, "other").read_bytes() == ready


def test_a_ready_model_that_is_none_gets_no_name(hub: HubServer, tmp_path: Path) -> None:
    hub.files = {"small.qedge": bytes(9000)}
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 5
    assert not list((tmp_path / "qe" / "models").iterdir())


def test_one_of_several_files_must_be_named(hub: HubServer, tmp_path: Path) -> None:
    ready = tiny_model(tmp_path / "made" / "ready.qedge").read_bytes()
    hub.files = {"a-q4.qedge": ready, "a-q8.qedge": ready[::-1], "b.gguf": b"GGUF" * 2000}
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 2
    assert "a-q4.qedge" in result.stderr
    assert "a-q8.qedge" in result.stderr
    for chosen in ([f"{REPO}:Q4"], [REPO, "--file", "a-q4.qedge"]):
        assert pull(hub, tmp_path, *chosen, "--force").returncode == 0
        assert model_file(tmp_path, "a-q4").read_bytes() == ready
        assert not hub.asked("a-q8")
    result = pull(hub, tmp_path, f"{REPO}:nothing")
    assert result.returncode == 3
    assert "b.gguf" in result.stderr


def test_a_gguf_file_is_converted(hub: HubServer, tmp_path: Path) -> None:
    exported = tmp_path / "Demo-Q4.gguf"
    assert run("convert", "demo", "--to", "gguf", "-o", exported, home=tmp_path).returncode == 0
    hub.files = {exported.name: exported.read_bytes(), "README.md": b"x"}
    result = pull(hub, tmp_path, f"{REPO}:q4")
    assert (result.returncode, result.stdout) == (0, f"{model_file(tmp_path, 'Demo-Q4')}\n")
    assert downloads(tmp_path) == []
    with open_model(model_file(tmp_path, "Demo-Q4")) as model:
        assert model.source == f"{REPO}:Demo-Q4.gguf"
    assert "here already" in pull(hub, tmp_path, REPO).stderr


def test_a_dry_run_downloads_nothing(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, REPO, "--dry-run")
    assert result.returncode == 0
    names = {line.split()[0] for line in result.stdout.splitlines()[1:]}
    assert names == {"config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS}
    assert "Disk space needed" in result.stderr
    assert not hub.asked(WEIGHTS)
    assert downloads(tmp_path) == []


def test_a_model_that_has_no_room_is_told_of_before_the_download(
    hub: HubServer, tmp_path: Path
) -> None:
    told = "of memory, and it may take"
    assert told not in pull(hub, tmp_path, REPO, "--dry-run").stderr
    config = json.loads(hub.files["config.json"])
    # Terabytes: more than any machine has that runs tests.
    config |= {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 100}
    hub.files["config.json"] = json.dumps(config).encode()
    result = pull(hub, tmp_path, REPO, "--dry-run")
    assert result.returncode == 0
    assert "warning: Tiny-Qwen needs " in result.stderr
    assert told in result.stderr
    assert not hub.asked(WEIGHTS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["qwen3-0.7b"], 3, ["qwen3-0.6b"]),
        (["owner/missing"], 6, ["no model owner/missing", "HF_TOKEN"]),
        ([REPO, "--revision", "no-such"], 6, ["no revision no-such"]),
        ([REPO, "--revision", "../x"], 2, ["--revision"]),
        ([REPO, "--source", "elsewhere"], 2, ["huggingface, modelscope"]),
        (["../x/y"], 2, ["owner/name"]),
        ([f"{REPO}:"], 2, ["colon"]),
        (["http://example.com/x.gguf"], 2, ["plain HTTP"]),
        (["https://example.com/x.zip"], 2, [".gguf or .qedge"]),
        (["https://huggingface.co/datasets/a/b"], 2, ["not the address of a model"]),
        ([f"https://huggingface.co/{REPO}", "--source", "modelscope"], 2, ["modelscope"]),
        ([REPO, "--bits", "3"], 2, ["3"]),
        ([REPO, "--method", "magic"], 2, ["magic"]),
        ([REPO, "--override", "lm_head"], 2, ["lm_head"]),
        ([REPO, "--threads", "-1"], 2, ["threads"]),
        ([REPO, "--timeout", "0"], 2, ["--timeout"]),
        ([REPO, "--name", "../x"], 2, ["../x"]),
    ],
)
def test_wrong_requests(
    hub: HubServer, tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    result = pull(hub, tmp_path, *arguments)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert all(word in result.stderr for word in words), result.stderr
    assert result.stderr.count("\n") <= 2
    assert downloads(tmp_path) == []


def test_models_of_other_kinds_are_refused_before_the_download(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.files["config.json"] = json.dumps(
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    ).encode()
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 5
    assert "LlamaForCausalLM" in result.stderr
    assert not hub.asked(WEIGHTS)


def test_messages_are_chinese_too(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, "owner/missing", QWEN_EDGE_LANG="zh")
    assert "没有模型 owner/missing" in result.stderr
    assert "提示：" in result.stderr


def test_faults_on_the_way_are_told_and_mended(hub: HubServer, tmp_path: Path) -> None:
    hub.listing_faults = [Fault(status=429, headers={"Retry-After": "1"})]
    hub.faults[WEIGHTS] = [Fault(cut=1_000_000), Fault(status=503), Fault(stall=2_000_000)]
    result = pull(hub, tmp_path, REPO, "--timeout", "1")
    assert result.returncode == 0, result.stderr
    assert "127.0.0.1: 429; trying again in 1 s." in result.stderr
    assert "127.0.0.1: 503; trying again" in result.stderr
    assert "timed out; trying again" in result.stderr
    ranges = [request.headers.get("Range") for request in hub.asked(WEIGHTS)]
    assert ranges == [None, "bytes=1000000-", "bytes=1000000-", "bytes=3000000-"]


@pytest.mark.parametrize("lie", ["hash", "size"])
def test_lies_of_the_listing(hub: HubServer, tmp_path: Path, lie: str) -> None:
    if lie == "hash":
        hub.digests[WEIGHTS] = hashlib.sha256(b"something else").hexdigest()
    else:
        hub.sizes[WEIGHTS] = len(hub.files[WEIGHTS]) + 1000
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 6
    assert ("checksum" if lie == "hash" else "another size") in result.stderr
    assert not model_file(tmp_path).exists()
    assert not [path for path in downloads(tmp_path) if path.name == WEIGHTS]


def test_a_full_disk_is_told_before_the_download(hub: HubServer, tmp_path: Path) -> None:
    entry = {"type": "file", "path": WEIGHTS, "size": 1 << 60, "lfs": {"oid": "0" * 64}}
    del hub.files[WEIGHTS]
    hub.extra_entries = [entry]
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 1
    assert "1048576 TiB for the download" in result.stderr
    assert "are free" in result.stderr
    assert not hub.asked(WEIGHTS)


def test_a_limit_on_files_leaves_a_part(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "qe"
    done = subprocess.run(
        [*PROGRAM, "pull", REPO],
        capture_output=True,
        text=True,
        env=environment(home, HF_ENDPOINT=hub.url),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        check=False,
    )
    assert done.returncode == 1
    assert "more than a file may have there" in done.stderr
    assert "Traceback" not in done.stderr
    assert "are kept in" in done.stderr
    hub.requests.clear()
    assert pull(hub, tmp_path, REPO).returncode == 0
    assert hub.asked(WEIGHTS)[0].headers["Range"] == f"bytes={1 << 20}-"


def started(hub: HubServer, home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "qwen_edge", "pull", REPO, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home / "qe", HF_ENDPOINT=hub.url),
    )


def wait_for_part(home: Path, size: int) -> Path:
    """Waits until so much of the weights is here."""
    part = home / "qe" / "downloads" / "huggingface--Owner--Tiny-Qwen" / f"{WEIGHTS}.part"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if part.exists() and part.stat().st_size >= size:
            return part
        time.sleep(0.01)
    raise AssertionError("the download did not begin")


ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}


@pytest.mark.parametrize("number", ENDS)
def test_a_broken_off_download_goes_on(
    hub: HubServer, tmp_path: Path, number: signal.Signals
) -> None:
    hub.slow = 0.02
    process = started(hub, tmp_path)
    part = wait_for_part(tmp_path, 500_000)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == ENDS[number]
    assert output == ""
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert "the same command goes on from there" in errors
    size = part.stat().st_size
    assert 0 < size < len(hub.files[WEIGHTS])
    assert not part.with_suffix("").exists()
    assert not model_file(tmp_path).exists()
    hub.slow = 0
    hub.requests.clear()
    result = pull(hub, tmp_path, REPO)
    assert result.returncode == 0, result.stderr
    assert [request.headers["Range"] for request in hub.asked(WEIGHTS)] == [f"bytes={size}-"]
    assert model_file(tmp_path).is_file()
    assert downloads(tmp_path) == []


def test_a_kill_while_converting_needs_no_second_download(hub: HubServer, tmp_path: Path) -> None:
    process = started(hub, tmp_path, "--threads", "1")
    models = tmp_path / "qe" / "models"
    deadline = time.monotonic() + 60
    while not list(models.glob(".*.partial")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    assert not model_file(tmp_path).exists()
    hub.requests.clear()
    assert pull(hub, tmp_path, REPO).returncode == 0
    assert not hub.asked(WEIGHTS)
    assert [path.name for path in models.iterdir()] == ["Tiny-Qwen-int4.qedge"]


def test_another_file_of_the_repository_keeps_its_part(hub: HubServer, tmp_path: Path) -> None:
    ready = tiny_model(tmp_path / "made" / "ready.qedge").read_bytes()
    hub.files = {"a.qedge": ready, "b.qedge": ready}
    hub.always["a.qedge"] = Fault(status=404)
    hub.faults["a.qedge"] = [Fault(cut=100_000)]
    assert pull(hub, tmp_path, f"{REPO}:a.qedge").returncode == 6
    assert pull(hub, tmp_path, f"{REPO}:b.qedge").returncode == 0
    assert "a.qedge.part" in {path.name for path in downloads(tmp_path)}


def test_files_of_another_version_are_not_converted(hub: HubServer, tmp_path: Path) -> None:
    result = pull(hub, tmp_path, REPO, "--keep-source")
    assert result.returncode == 0, result.stderr
    weights = hub.files.pop(WEIGHTS)
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    names = dict.fromkeys(header, "model-a.safetensors")
    hub.files["model-a.safetensors"] = weights[:-1] + b"\1"
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": names}).encode()
    result = pull(hub, tmp_path, REPO, "--force", "--keep-source")
    assert result.returncode == 0, result.stderr
    found = {path.name for path in downloads(tmp_path)}
    assert "model-a.safetensors" in found
    assert WEIGHTS not in found


def test_two_at_once(hub: HubServer, tmp_path: Path) -> None:
    hub.slow = 0.02
    process = started(hub, tmp_path)
    wait_for_part(tmp_path, 100_000)
    second = pull(hub, tmp_path, REPO)
    assert second.returncode == 1
    assert "being downloaded by another process" in second.stderr
    assert second.stdout == ""
    hub.slow = 0
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (0, f"{model_file(tmp_path)}\n"), errors


@pytest.mark.parametrize("columns", [40, 80])
def test_the_bar_shows_speed_and_time_left(hub: HubServer, tmp_path: Path, columns: int) -> None:
    hub.slow = 0.03
    with terminal(tmp_path / "qe", "pull", REPO, columns=columns, HF_ENDPOINT=hub.url) as screen:
        screen.wait_for("/s  0:")
        screen.press_ctrl_c()
        assert screen.finish() == 130
    lines = screen.screen.replace("\x1b[K", "").split("\r")
    bars = [line for line in lines if "/s  0:" in line]
    assert all(len(line.removesuffix("^C")) < columns and "[" in line for line in bars)
    assert ("Downloading" in bars[0]) == (columns == 80)


def test_other_commands_import_no_network(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from qwen_edge.cli.app import run_program\n"
        "run_program(['models', 'list'])\n"
        "print(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment(tmp_path)},
        check=True,
    )
    assert not {"ssl", "http.client", "urllib.request"} & set(done.stdout.split())
