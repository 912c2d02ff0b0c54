"""The export folder: whole or absent, described by export.json, and refused in one sentence when damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ondevice.data.tokenizer import load_tokenizer
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import CheckpointError, DataError, DeviceError, OndeviceError, ResourceError, UsageError
from ondevice.export.onnx import export_onnx
from ondevice.export.trial import build_graph
from ondevice.infer.export_folder import ExportFolder, release
from ondevice.infer.onnx_session import import_onnxruntime
from ondevice.run import files
from ondevice.run.files import sha256_of
from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(arch="gpt2", vocab_size=257, context=16, layers=1, width=16, heads=2, kv_heads=2, hidden=32)


def state(shape: ModelShape = SHAPE) -> dict[str, np.ndarray]:
    at, wide = "blocks.0", shape.width
    sizes = {
        "embed.weight": (shape.vocab_size, wide),
        "position.weight": (shape.context, wide),
        f"{at}.attn.qkv.weight": (3 * wide, wide),
        f"{at}.attn.qkv.bias": (3 * wide,),
        f"{at}.attn.out.weight": (wide, wide),
        f"{at}.attn.out.bias": (wide,),
        f"{at}.mlp.up.weight": (shape.hidden, wide),
        f"{at}.mlp.up.bias": (shape.hidden,),
        f"{at}.mlp.down.weight": (wide, shape.hidden),
        f"{at}.mlp.down.bias": (wide,),
    }
    norms = [f"{norm}.{part}" for norm in (f"{at}.norm1", f"{at}.norm2", "norm") for part in ("weight", "bias")]
    sizes |= dict.fromkeys(norms, (wide,))
    random = np.random.default_rng(0)
    return {name: random.standard_normal(size, dtype=np.float32) for name, size in sizes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export."""
    place = tmp_path / "exports" / "first"
    export_onnx(SHAPE, state(), place, metadata={"run": "r1", "step": 7}, tokenizer=ByteTokenizer().save)
    return place


def test_export_json_describes_every_file(folder: Path) -> None:
    raw = json.loads((folder / "export.json").read_text())
    assert set(raw["files"]) == {each.name for each in folder.iterdir()} - {"export.json"}
    for name, each in raw["files"].items():
        assert each == {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    assert raw["shape"] == dataclasses.asdict(SHAPE)
    assert raw["lineage"] == {"run": "r1", "step": 7}
    assert raw["parameters"] == sum(each.size for each in state().values())
    assert (raw["v"], raw["format"], raw["opset"], raw["ir_version"]) == (1, "onnx", 17, 8)
    assert json.loads((folder / "parity.json").read_text())["checked"] is False
    assert ExportFolder.open(folder, verify=True).shape == SHAPE


def test_tokenizer_files_may_be_copied(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer")
    names = {each.name for each in (tmp_path / "tokenizer").iterdir()}
    export_onnx(SHAPE, state(), tmp_path / "a", metadata={}, tokenizer=tmp_path / "tokenizer")
    assert names < {each.name for each in (tmp_path / "a").iterdir()}
    assert load_tokenizer(tmp_path / "a").kind == "byte"
    one = tmp_path / "tokenizer" / min(names)
    export_onnx(SHAPE, state(), tmp_path / "b", metadata={}, tokenizer=one)
    assert (tmp_path / "b" / one.name).read_bytes() == one.read_bytes()


def test_an_existing_folder_is_replaced_only_when_asked_and_an_export(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        export_onnx(SHAPE, state(), folder, metadata={})
    export_onnx(SHAPE, state(), folder, metadata={"step": 8}, overwrite=True)
    assert ExportFolder.open(folder).lineage == {"step": 8}
    assert [each.name for each in folder.parent.iterdir()] == ["first"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(UsageError, match="not an export"):
        export_onnx(SHAPE, state(), tmp_path / "notes", metadata={}, overwrite=True)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [10_000]
    write_all = files.write_all

    def short_of_space(fd: int, data: bytes | memoryview) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, data)

    monkeypatch.setattr(files, "write_all", short_of_space)
    with pytest.raises(ResourceError, match="disk is full"):
        export_onnx(SHAPE, state(), tmp_path / "x", metadata={}, tokenizer=ByteTokenizer().save)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(ResourceError, match="needs 0 MB"):
        export_onnx(SHAPE, state(), tmp_path / "x", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = tmp_path / f".tmp-x-{dead.pid}-00000000"
    kept = tmp_path / f".tmp-x-{os.getpid()}-00000000"
    old = tmp_path / f".tmp-x-{dead.pid}-00000000-old"  # the only copy, while no x is there
    for each in (gone, kept, old):
        each.mkdir()
    export_onnx(SHAPE, state(), tmp_path / "x", metadata={})
    assert {each.name for each in tmp_path.iterdir()} == {"x", kept.name, old.name}


def test_a_graph_that_computes_something_else_is_not_left(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(OndeviceError, match="differs from the model by") as caught:
        export_onnx(SHAPE, state(), tmp_path / "x", metadata={}, reference=lambda ids: np.ones((*ids.shape, 257)))
    assert caught.value.exit_code == 1
    with pytest.raises(CheckpointError, match="not finite"):
        export_onnx(
            SHAPE, state(), tmp_path / "x", metadata={}, reference=lambda ids: np.full((*ids.shape, 257), np.nan)
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_and_shape_must_belong_together() -> None:
    with pytest.raises(CheckpointError, match=r"'embed.weight' have shape \[257, 16\]"):
        build_graph(dataclasses.replace(SHAPE, vocab_size=300), state())
    with pytest.raises(CheckpointError, match="Unknown weights 'extra'"):
        build_graph(SHAPE, {**state(), "extra": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"lack 'head.weight'"):
        build_graph(dataclasses.replace(SHAPE, tied=False), state())
    with pytest.raises(UsageError, match="'mamba'"):
        build_graph(dataclasses.replace(SHAPE, arch="mamba"), state())


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an export"):
        ExportFolder.open(tmp_path)
    model = folder / "model.onnx"
    data = bytearray(model.read_bytes())
    data[-1000] ^= 1
    model.write_bytes(data)
    ExportFolder.open(folder)
    with pytest.raises(DataError, match="SHA-256"):
        ExportFolder.open(folder, verify=True)
    model.write_bytes(data[:-1])
    with pytest.raises(DataError, match="bytes instead of"):
        ExportFolder.open(folder)
    model.unlink()
    with pytest.raises(DataError, match="missing"):
        ExportFolder.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"v": 3}, "version 1 or 2"), ({"shape": {"arch": "gpt2"}}, "damaged"), ({"files": 3}, "damaged")],
)
def test_a_foreign_export_json_is_refused(folder: Path, change: dict, message: str) -> None:
    raw = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(raw | change))
    with pytest.raises(DataError, match=message):
        ExportFolder.open(folder)


def test_a_file_that_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from ondevice.infer.onnx_session import OnnxSession

    (tmp_path / "model.onnx").write_bytes(b"not protobuf at all")
    with pytest.raises(DataError, match="cannot load it"):
        OnnxSession(tmp_path / "model.onnx", SHAPE)
    with pytest.raises(DataError, match="no such file"):
        OnnxSession(tmp_path / "absent.onnx", SHAPE)


def test_a_model_of_a_newer_opset_asks_for_a_newer_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from ondevice.infer.onnx_session import OnnxSession

    build_graph(SHAPE, state()).save(tmp_path, external=False)
    model = onnx.load(tmp_path / "model.onnx")
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(DeviceError, match="too old"):
        OnnxSession(tmp_path / "model.onnx", SHAPE)


@pytest.mark.parametrize(
    ("platform", "command"), [("android", "pkg install python-onnxruntime"), ("linux", "pip install")]
)
def test_a_missing_or_old_package_names_its_install_command(
    monkeypatch: pytest.MonkeyPatch, platform: str, command: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("PREFIX", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=command):
        import_onnxruntime()
    old = type(sys)("onnxruntime")
    old.__version__ = "1.19.2"
    monkeypatch.setitem(sys.modules, "onnxruntime", old)
    with pytest.raises(DeviceError, match=r"1\.19\.2 is too old.*1\.20"):
        import_onnxruntime()


def test_an_export_without_onnxruntime_says_that_it_is_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    info = export_onnx(SHAPE, state(), tmp_path / "x", metadata={}, reference=lambda ids: ids)
    assert info.parity is None and "not installed" in info.unchecked
    assert "not installed" in json.loads((tmp_path / "x" / "parity.json").read_text())["reason"]


def test_versions_compare() -> None:
    assert release("1.9.0") < release("1.20") <= release("1.20.0") < release("1.29.0+dev3") < release("1.31.1")


def test_importing_is_light() -> None:
    code = (
        "import sys, ondevice.export, ondevice.export.onnx, ondevice.infer, ondevice.infer.text, "
        "ondevice.infer.onnx_backend; sys.exit(str({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
