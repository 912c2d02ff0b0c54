"""From a finished study to the pages of docs/studies, the chosen run with them; the study itself stays as it was."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from ondevice.cli.main import main
from tests.little_study import LITTLE
from tools import study_report

STUDY = f"""
name = "little"
question = "Which is better?"
seeds = [1, 2]
intervals = 2
reference = "slow"
[panel]
per_source = 3
max_new_tokens = 6
[config.data]
split = "hash:0.2"
[[config.data.sources]]
path = "a.txt"
document = "line"
[config.train]
steps = 4
batch = 2
{LITTLE}save_every_steps = 2
keep_every_steps = 2
[[arms]]
name = "slow"
config.train.lr = 1e-3
[[arms]]
name = "quick"
config.train.lr = 3e-2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study that was run in ``home``."""
    folder = tmp_path_factory.mktemp("study report")
    (folder / "a.txt").write_text("\n".join(f"north {n} and {n * 7 % 13} north" for n in range(120)), "utf-8")
    (folder / "little.toml").write_text(STUDY, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(folder / "home"))
        patch.chdir(folder)
        assert main(["study", "run", "little.toml", "--quiet"]) == 0
    return folder


def report(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """As from the command line; another test's home must not be seen."""
    monkeypatch.setenv("ONDEVICE_HOME", str(place / "nowhere"))
    monkeypatch.setattr(study_report, "TEMPERATURES", ("0.5",))
    monkeypatch.setattr(study_report, "TOP_PS", ("0.9",))
    monkeypatch.setattr(sys, "argv", ["study_report.py", str(place / "home"), *words, "--base", str(place)])
    study_report.main()


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_pages_of_a_study_and_of_the_run_that_is_chosen_from(place, monkeypatch, tmp_path, capsys):
    before = sums(place / "home")
    stale = tmp_path / "little" / "quick-2" / "sweep-00000099-tuning.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("from another time")
    report(place, monkeypatch, "little", "--run", "quick-2", "--out", str(tmp_path))
    assert sums(place / "home") == before
    files = {str(path.relative_to(tmp_path / "little")) for path in (tmp_path / "little").rglob("*") if path.is_file()}
    run = {name for name in files if name.startswith("quick-2/")}
    assert files - run == {"report.md", "report.html"} and len(run) == 5 and not stale.exists()
    said = capsys.readouterr().out
    assert "on 2 tuning prompts" in said or "on 1 tuning prompts" in said  # as many a source as the study's panel
    page = (tmp_path / "little" / "report.md").read_text("utf-8")
    assert page.index("Which is better?") < page.index("quick is") < page.index("## Trajectories")
    chosen = (tmp_path / "little" / "quick-2" / "report.md").read_text("utf-8")
    assert "## Selection" in chosen and "## Decoding settings" in chosen and "For use take step" in chosen
    step = chosen.partition("For use take step ")[2].partition(":")[0]
    assert f"quick-2/sweep-{int(step):08d}-tuning.csv" in run  # the settings are those of the checkpoint for use
    for name in files:
        text = (tmp_path / "little" / name).read_text("utf-8")
        assert str(place) not in text and str(place / "home") not in text and "/tmp/tmp" not in text, name


@pytest.mark.parametrize(
    ("words", "why"),
    [(("littel",), "no study is there"), (("little", "--run", "quick-3"), "--run is one of quick-1, quick-2, slow-1")],
)
def test_a_wrong_name_is_one_sentence(place, monkeypatch, tmp_path, words, why):
    with pytest.raises(SystemExit, match=why):
        report(place, monkeypatch, *words, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())
