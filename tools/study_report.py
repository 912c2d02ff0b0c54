"""Writes what docs/studies holds of a study, from a copy of it, so that the study itself stays as it is.

    python tools/study_report.py HOME NAME [--base FOLDER] [--run ARM-SEED] [--per-source N] [--out docs/studies]

HOME is the ONDEVICE_HOME in which the study was run, NAME its name, --base what it was run with. What was measured is
taken as it is; what follows from it is computed anew, by the formulas of this version, and nothing is trained. A study
that is not finished is reported as far as it is. With --run also `select` among that run's checkpoints, `sweep` of the
one that is chosen for use (every other prompt held out), its own report, and both leaderboards.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ondevice.study.design import Design

TEMPERATURES, TOP_PS = ("0.5", "0.7", "0.9"), ("0.9", "0.95")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("name")
    parser.add_argument("--base", type=Path, help="where relative paths of the study's file count from")
    parser.add_argument("--run", help="a run of the study to choose a checkpoint and decoding settings of")
    parser.add_argument(
        "--per-source", type=int, help="prompts a source, half held out of the sweep (as the study; 20)"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/studies"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONDEVICE_HOME"] = home
        study = copied(args.home, args.name, Path(home), args.run)
        design = compute(study, args.base or Path.cwd())
        out = (args.out / args.name).absolute()
        call("report", args.name, "--out", out)
        if args.run:
            panel = design.panel.per_source if design.panel else 20
            choose(study / "runs" / args.run, out, per_source=args.per_source or panel)
        for page in (*out.rglob("report.md"), *out.rglob("report.html")):
            page.write_text(without_folders(page.read_text("utf-8")), "utf-8")


def copied(source: Path, name: str, home: Path, run: str | None) -> Path:
    """The study and the datasets it was run on, in a home of their own; a run that is under way as it is now. Only the
    run that is chosen among keeps its checkpoints."""
    study = source / "studies" / name
    if not (study / "study.json").is_file():
        sys.exit(f"{study}: no study is there; HOME is the folder that has studies/{name}.")
    if run is not None and not (study / "runs" / run / "run.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in (study / "runs").glob("*/run.json")))
        sys.exit(f"{study}: has no run {run}; --run is one of {known or 'none yet'}.")

    def left_out(folder: str, names: list[str]) -> list[str]:
        heavy = {"checkpoints", "cache"} if Path(folder).name != run else set()
        return [each for each in names if each in heavy or each.startswith(".tmp-")]

    shutil.copytree(source / "datasets", home / "datasets")
    shutil.copytree(study, home / "studies" / name, ignore=left_out)
    return home / "studies" / name


def compute(study: Path, base: Path) -> Design:
    """Writes the record again."""
    from ondevice.study.conduct import Study
    from ondevice.study.design import read_design

    design = read_design(str(study / "study.toml"), base=base.absolute())
    with Study(design, build=refuse, train=refuse, say=print, cores=1, android=False).held():
        pass
    return design


def refuse(_: object) -> None:
    raise AssertionError("nothing is built or trained here")


def choose(run: Path, out: Path, *, per_source: int) -> None:
    """The best checkpoint and settings of a run, and what was found on the way."""
    from ondevice.run.files import read_sealed
    from ondevice.study.selection import SELECTION_FILE, SELECTION_VERSION

    call("select", run, "--per-source", per_source)
    chosen = read_sealed(run / "evals" / SELECTION_FILE, version=SELECTION_VERSION)["roles"]["practical"]
    grid = ("--try-temperature", *TEMPERATURES, "--try-top-p", *TOP_PS)
    call("sweep", run, "--step", chosen, "--per-source", per_source, *grid)
    call("report", run, "--out", out / run.name)
    for old in (out / run.name).glob("sweep-*.csv"):
        old.unlink()
    for file in (*(run / "evals").glob("sweep-*.csv"), run / "evals" / "generation_config.json"):
        shutil.copy(file, out / run.name / file.name)


def without_folders(page: str) -> str:
    """The commands on a page without the folders of the machine that they were typed on."""
    command = re.compile(r"(\| command \| |command</td><td[^>]*>)([^|<]*)")
    return command.sub(lambda found: found[1] + re.sub(r"(?<!\S)/(?:[^\s/]+/)+", "", found[2]), page)


def call(*words: object) -> None:
    """A command of ondevice, said as a person would; its failure is the program's."""
    from ondevice.cli.main import main as ondevice

    shown = [str(word) for word in words]
    print("$ ondevice", *shown, flush=True)
    if code := ondevice(shown):
        sys.exit(code)


if __name__ == "__main__":
    main()
