"""``ondevice pull`` against a small hub of our own: its API, ranges, broken connections, refusals."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ondevice.model import safetensors

pytest.importorskip("huggingface_hub")
COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
CONFIG = {"model_type": "gpt2", "vocab_size": 300, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}


class Hub:
    """One repository. ``breaks`` is after how many bytes each of the next answers with a file ends."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.repo, self.token = files, "someone/small", ""
        self.breaks: list[int] = []
        self.served: list[tuple[str, int, int]] = []  # name, from which byte, how many
        self.damage = False
        self.gated = False

    def info(self) -> bytes:
        siblings = []
        for name, data in self.files.items():
            large = name.endswith((".safetensors", ".bin"))
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            siblings.append({"rfilename": name, "size": len(data), "blobId": blob, **({"lfs": lfs} if large else {})})
        facts = {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "tags": [], "siblings": siblings}
        return json.dumps({**facts, "private": False, "downloads": 0, "likes": 0}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.gated and "/resolve/" in path:
            self.refuse(403, "GatedRepo")
        elif hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            self.refuse(401, "RepoNotFound")
        elif path.startswith(f"/api/models/{hub.repo}/revision/") and not path.endswith(("/main", COMMIT)):
            self.refuse(404, "RevisionNotFound")
        elif re.fullmatch(rf"/api/models/{hub.repo}(/revision/\w+)?", path):
            self.send(200, hub.info(), {"content-type": "application/json"})
        elif (found := re.fullmatch(rf"/{hub.repo}/resolve/(?:main|{COMMIT})/(.+)", path)) and found[1] in hub.files:
            self.file(found[1], body=body)
        else:
            self.refuse(404, "EntryNotFound" if "/resolve/" in path else "RepoNotFound")

    def file(self, name: str, *, body: bool) -> None:
        data = self.hub.files[name]
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("range") or "")) else 0
        facts = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            facts["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        if self.hub.damage and name.endswith(".safetensors"):
            part = part[:-1] + bytes([part[-1] ^ 1])
        if not body:
            self.send(200, b"", {**facts, "Content-Length": str(len(data))})
            return
        upto = self.hub.breaks.pop(0) if self.hub.breaks and name.endswith(".safetensors") else len(part)
        self.hub.served.append((name, start, min(upto, len(part))))
        self.send(206 if start else 200, part[:upto], {**facts, "Content-Length": str(len(part))})
        if upto < len(part):
            self.close_connection = True

    def send(self, status: int, data: bytes, facts: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **facts}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    safetensors.write(weights, {"wte.weight": np.arange(30_000, dtype=np.float32)}, {})
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "merges.txt": b"#version: 0.2\n",
        "README.md": b"# small",
        "model.safetensors": weights.read_bytes(),
        "pytorch_model.bin": b"\x80\x02}q\x00.",
        "onnx/model.onnx": b"onnx",
        "64-8bits.tflite": b"tflite",
    }
    found = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": found}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "home" / "models" / "someone--small"


def test_takes_weights_tokenizer_and_json_and_nothing_else(hub, folder, call):
    result = call("pull", "someone/small")
    assert result.code == 0, result.err
    taken = {"config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == taken | {"pull.json"}
    for name in taken:
        assert (folder / name).read_bytes() == hub.files[name]
    assert {name for name, _, _ in hub.served} == taken
    assert ["0.1", "MB", "model.safetensors"] in [line.split() for line in result.out.splitlines()]
    assert "pytorch_model.bin" in result.out.partition("Not taken: ")[2]


def test_sizes_alone(hub, folder, call):
    found = call("pull", "someone/small", "--dry-run", "--json").json
    assert found["bytes"] == sum(found["files"].values()) and found["revision"] == COMMIT
    assert hub.served == [] and not folder.exists()


def test_what_is_there_is_not_fetched_again_and_what_changed_is(hub, folder, call):
    assert call("pull", "someone/small").code == 0
    hub.served.clear()
    assert call("pull", "someone/small").code == 0
    assert hub.served == []
    (folder / "tokenizer.json").write_bytes(b"[]")
    assert call("pull", "someone/small").code == 0
    assert [name for name, _, _ in hub.served] == ["tokenizer.json"]
    assert (folder / "tokenizer.json").read_bytes() == b"{}"


def test_a_connection_that_breaks_once_is_gone_on_with(hub, folder, call):
    hub.breaks = [50_000]
    assert call("pull", "someone/small").code == 0
    whole = len(hub.files["model.safetensors"])
    served = [each for each in hub.served if each[0] == "model.safetensors"]
    assert served == [("model.safetensors", 0, 50_000), ("model.safetensors", 50_000, whole - 50_000)]
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_what_came_before_the_network_died_is_kept_for_the_next_time(hub, folder, call):
    hub.breaks = [50_000, *[0] * 20]
    result = call("pull", "someone/small")
    assert result.code == 6 and "cannot be reached" in result.error and "repeat" in result.error
    parts = list(folder.glob("*.part"))
    assert [part.stat().st_size for part in parts] == [50_000] and not (folder / "model.safetensors").exists()
    hub.breaks, hub.served = [], []
    assert call("pull", "someone/small").code == 0
    assert [start for name, start, _ in hub.served if name == "model.safetensors"] == [50_000]
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not list(folder.glob("*.part"))


def test_a_file_that_arrives_damaged_never_gets_its_name(hub, folder, call):
    hub.damage = True
    result = call("pull", "someone/small")
    assert result.code == 3 and "model.safetensors: arrived damaged" in result.error
    assert not (folder / "model.safetensors").exists() and not list(folder.glob("*.part"))
    hub.damage = False
    assert call("pull", "someone/small").code == 0


def test_the_token_is_sent_and_its_lack_is_explained(hub, folder, call, monkeypatch):
    hub.token = "hf_secret"
    result = call("pull", "someone/small")
    assert result.code == 3 and "no such model, or it is private" in result.error and "HF_TOKEN" in result.error
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = call("pull", "someone/small")
    assert result.code == 0 and "hf_secret" not in result.out + result.err


def test_consent_that_is_wanted_is_explained(hub, call):
    hub.gated = True
    result = call("pull", "someone/small")
    assert result.code == 3 and "accept their terms at" in result.error


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["someone/other"], "no such model", 3),
        (["someone/small", "--revision", "nowhere"], "has no revision 'nowhere'", 3),
        (["../etc/passwd"], "not the name of a model", 2),
        (["a/b/c"], "not the name of a model", 2),
    ],
)
def test_what_is_not_there(hub, call, words, says, code):
    result = call("pull", *words)
    assert (result.code, says in result.error) == (code, True), result.err


def test_without_the_library_its_installation_is_named(hub, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = call("pull", "someone/small")
    assert result.code == 6 and "pip install huggingface_hub" in result.error


def test_two_at_once_do_not_write_into_each_other(hub, folder, call):
    hub.breaks = [10_000, *[0] * 20]
    assert call("pull", "someone/small").code == 6
    part = next(folder.glob("*.part"))
    with open(part, "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = call("pull", "someone/small")
    assert result.code == 7 and "another process is fetching" in result.error


def test_nobody_answers(hub, call, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = call("pull", "someone/small")
    assert result.code == 6 and "cannot be reached" in result.error


def test_pickles_alone_are_refused(hub, call):
    del hub.files["model.safetensors"]
    result = call("pull", "someone/small")
    assert result.code == 3 and "only pytorch_model.bin" in result.error and hub.served == []


def test_an_architecture_we_lack_is_refused_before_its_weights_come(hub, call):
    hub.files["config.json"] = json.dumps({**CONFIG, "model_type": "mamba"}).encode()
    result = call("pull", "someone/small")
    assert result.code == 4 and "'mamba'" in result.error
    assert "model.safetensors" not in {name for name, _, _ in hub.served}


def test_shards_come_with_their_index_and_hostile_names_never(hub, folder, call):
    whole = hub.files.pop("model.safetensors")
    index = b'{"weight_map": {}}'
    hub.files |= {"model-00001-of-00001.safetensors": whole, "model.safetensors.index.json": index}
    hub.files |= {"../../escaped.json": b"{}", "model.fp16.safetensors": b"half"}
    found = call("pull", "someone/small", "--json").json
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json"} <= set(found["files"])
    assert "model.fp16.safetensors" in found["left_out"]
    assert not list(folder.parent.parent.glob("**/escaped.json"))


def test_an_adapter_comes_without_the_config_of_a_model(hub, folder, call):
    whole = hub.files.pop("model.safetensors")
    del hub.files["config.json"]
    hub.files |= {"adapter_model.safetensors": whole, "adapter_config.json": b'{"peft_type": "LORA"}'}
    result = call("pull", "someone/small")
    assert result.code == 0 and f"--adapter {folder}" in result.out
    assert (folder / "adapter_model.safetensors").read_bytes() == whole


def test_a_full_disk_is_told_before_anything_comes(hub, folder, call, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    result = call("pull", "someone/small")
    assert result.code == 5 and "MB are free" in result.error and hub.served == [] and not folder.exists()


def test_another_model_in_the_folder_is_not_overwritten(hub, tmp_path, call):
    place = tmp_path / "here"
    assert call("pull", "someone/small", "--to", place).code == 0
    hub.repo = "someone/else"
    assert "holds someone/small already" in call("pull", "someone/else", "--to", place).error
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    assert "was not fetched by this command" in call("pull", "someone/else", "--to", tmp_path / "own").error


def test_offline_takes_what_other_programs_fetched(hub, folder, call, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = call("pull", "someone/small")
    assert result.code == 6 and "HF_HUB_OFFLINE" in result.error
    monkeypatch.delenv("HF_HUB_OFFLINE")
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        hf_hub_download(hub.repo, name, endpoint=os.environ["HF_ENDPOINT"], cache_dir=tmp_path / "hf" / "hub")
    hub.served.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert call("pull", "someone/small").code == 0
    assert hub.served == [] and (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_pulled_model_is_known_by_its_name(hub, folder, call, tmp_path, monkeypatch):
    from ondevice.run.config import parse_config

    assert call("pull", "someone/small").code == 0
    text = 'model.base = "{}"\n[[data.sources]]\npath = "a.txt"\n'
    named = parse_config(text.format("someone/small"), where="x", base=tmp_path)
    assert named.model.base == str(folder)
    other = parse_config(text.format("./someone/small"), where="x", base=tmp_path)
    assert other.model.base == str(Path(tmp_path / "someone" / "small"))
