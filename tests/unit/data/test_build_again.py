"""A build repeated after something went wrong outside of it: torn scans, permissions, its own files in the way."""

import errno

import pytest

from ondevice.data import build_scan
from ondevice.data.build import build_dataset
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "notes" / "ondevice"))
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("\n\n".join(f"note {n} of file {name}" for n in range(200)))
    return folder


def build(notes):
    data = DataConfig(sources=(SourceConfig(path=str(notes), document="paragraph"),))
    folder = notes / "ondevice" / "datasets" / "notes"
    return build_dataset(data, TokenizerConfig(kind="byte"), base=notes, folder=folder)


def test_what_ondevice_writes_is_not_read_as_text(notes):
    first = build(notes)
    (notes / "ondevice" / "runs").mkdir()
    (notes / "ondevice" / "runs" / "story.txt").write_text("telemetry\n\n" * 300)
    assert build(notes).sha256 == first.sha256
    assert sum(entry.documents for entry in first.sources) == 400


def test_a_scan_torn_by_a_power_cut_is_made_again(notes):
    first = build(notes)
    for path in first.folder.glob("scan/*.docs"):
        path.write_bytes(b"")
    (first.folder / "dataset.json").unlink()
    sha256 = first.sha256
    del first
    assert build(notes).sha256 == sha256


@pytest.mark.parametrize("place", [".", "scan", "chunks/*", "tokenizer-*"])
def test_what_a_killed_build_left_half_written_is_swept_away(notes, place):
    folder = build(notes).folder
    (at,) = list(folder.glob(place))[:1] if place != "." else [folder]
    (at / ".tmp-half-1234-abcd").write_bytes(b"half a file")
    (notes / "c.txt").write_text("one more note\n\n" * 3)
    build(notes)
    assert list(folder.rglob(".tmp-*")) == []


def test_a_file_that_became_readable_is_looked_at_again(notes, monkeypatch):
    """Permissions change neither size nor time, so a remembered refusal must not count as a known file."""
    real = build_scan.sha256_of

    def refusing(path):
        if path.name == "b.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(build_scan, "sha256_of", refusing)
        scans = build(notes).folder / "scan"
    source = SourceConfig(path=str(notes), document="paragraph")
    listed = build_scan.list_content(source, DataConfig(), base=notes, folder=scans)
    hashes = {name: sha for name, _, _, sha in listed.files}
    assert hashes["b.txt"] == real(notes / "b.txt")
