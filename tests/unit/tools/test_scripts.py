"""The shell scripts: shellcheck, refusals, the order of set-up, its stamp, and the summary of check.

Set-up runs against made-up ``uname``, ``pkg``, ``dpkg`` and ``python3`` on PATH, which write down how they were called;
nothing is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ondevice.cli.doctor_remedies import TORCH_WHEEL, TORCH_WHEEL_ARMV80

ROOT = Path(__file__).parents[3]
SCRIPTS = ["tools/setup", "tools/quickstart", "tools/test", "tools/check", ".ci/run"]

# A Python that writes its arguments down. "-m venv" plants a copy of it; the small programs that set-up feeds it run in
# the real interpreter; pip pretends to work, and answers what the test wants about torch.
FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
    "-m venv "*)
        echo "python $*" >>"$CALLS"
        for last; do :; done
        mkdir -p "$last/bin"
        cp "$0" "$last/bin/python"
        cp "$0" "$last/bin/ondevice"
        echo "#!$last/bin/python" >"$last/bin/pip"
        ;;
    *--dry-run*)
        echo "ask $*" >>"$CALLS"
        kind=$PLAIN
        case "$*" in *--extra-index-url*) kind=$EXTRA ;; esac
        [ "$kind" != none ] || exit 1
        while [ "$1" != --report ]; do shift; done
        cp "$REPORTS/$kind.json" "$2"
        ;;
    "-m pip "*) echo "$*" >>"$CALLS"; [ -z "${PIP_FAILS:-}" ] || { seq 50; exit 1; } ;;
    -V) echo "Python 3.11.7" ;;
    "-c import pip"*) ;;
    "- 2."*) exit 1 ;;
    "-") cat >/dev/null; echo "setup: torch checked" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def pip_report(version: str, *requirements: str) -> str:
    metadata = {"version": version, "requires_dist": ["sympy", *requirements]}
    return json.dumps({"install": [{"metadata": metadata, "download_info": {"url": "https://x/y.whl"}}]})


@dataclass
class Place:
    """A copy of the scripts, a folder of made-up programs, and what they were called with."""

    root: Path
    programs: Path
    env: dict[str, str]

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(self.root / script), *arguments]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=60, cwd="/")

    def calls(self) -> list[str]:
        path = Path(self.env["CALLS"])
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root, programs, reports = tmp_path / "my clone", tmp_path / "bin", tmp_path / "reports"
    for folder in (root, programs, reports):
        folder.mkdir()
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("bench", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    (reports / "cpu.json").write_text(pip_report("2.13.0+cpu"))
    (reports / "cuda.json").write_text(pip_report("2.13.0", "nvidia-cublas==13; platform_system == 'Linux'"))
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "REPORTS": str(reports),
        "REAL_PYTHON": sys.executable,
        "PLAIN": "cpu",
        "EXTRA": "none",
    }
    made = Place(root, programs, env)
    made.program("uname", 'case "$1" in -s) echo Linux ;; -m) echo x86_64 ;; -o) echo GNU/Linux ;; esac')
    made.program("python3", FAKE_PYTHON)
    return made


def be_termux(place: Place, *, installed: bool) -> None:
    place.program("uname", 'case "$1" in -s) echo Linux ;; -m) echo aarch64 ;; -o) echo Android ;; esac')
    place.program("pkg", 'echo "pkg $*" >>"$CALLS"')
    place.program("dpkg", f"exit {0 if installed else 1}")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable(script: str) -> None:
    assert stat.S_IMODE((ROOT / script).stat().st_mode) & 0o111 == 0o111


def test_set_up_and_doctor_advise_the_same_torch() -> None:
    text = (ROOT / "tools/setup").read_text()
    assert f"\ntorch={TORCH_WHEEL}\n" in text
    assert f"\ntorch_armv80={TORCH_WHEEL_ARMV80} #" in text


@pytest.mark.parametrize("name", ["MINGW64_NT-10.0", "CYGWIN_NT-10.0", "MSYS_NT-10.0"])
def test_windows_is_pointed_to_wsl(place: Place, name: str) -> None:
    place.program("uname", f"echo {name}")
    done = place.run("tools/setup")
    assert done.returncode == 1 and "WSL" in done.stderr
    assert place.calls() == []


@pytest.mark.parametrize(("system", "machine", "word"), [("Darwin", "x86_64", "Intel"), ("Linux", "armv7l", "64-bit")])
def test_machines_without_torch_are_refused(place: Place, system: str, machine: str, word: str) -> None:
    place.program("uname", f'case "$1" in -s) echo {system} ;; -m) echo {machine} ;; esac')
    done = place.run("tools/setup")
    assert done.returncode == 1 and word in done.stderr


def test_linux_takes_the_cpu_build_that_pip_finds_itself(place: Place) -> None:
    done = place.run("tools/setup", "--with", "test,lint")
    assert done.returncode == 0, done.stderr
    venv, asked, torch, project = place.calls()
    assert venv == f"python -m venv --clear {place.root}/.venv"
    assert "--extra-index-url" not in asked
    assert torch == f"-m pip install {TORCH_WHEEL}"
    toml = f"{place.root}/pyproject.toml"
    assert project == f"-m pip install -e {place.root}[all] --group {toml}:test --group {toml}:lint"
    assert "setup: torch 2.13.0+cpu, the CPU build" in done.stdout


def test_linux_asks_the_cpu_index_before_it_would_take_cuda(place: Place) -> None:
    done = place.run("tools/setup", PLAIN="cuda", EXTRA="cpu", ONDEVICE_TORCH_INDEX="https://mirror/cpu")
    assert done.returncode == 0, done.stderr
    assert f"-m pip install --extra-index-url https://mirror/cpu {TORCH_WHEEL}" in place.calls()


@pytest.mark.parametrize(("plain", "extra"), [("cuda", "cuda"), ("cuda", "none"), ("none", "none")])
def test_gigabytes_of_cuda_are_never_fetched(place: Place, plain: str, extra: str) -> None:
    done = place.run("tools/setup", PLAIN=plain, EXTRA=extra)
    assert done.returncode == 1
    assert "CUDA" in done.stderr or "network" in done.stderr
    assert not [call for call in place.calls() if call.startswith("-m pip install")]
    assert not (place.root / ".venv/setup.stamp").exists()


def test_the_second_run_does_nothing_and_groups_are_kept(place: Place) -> None:
    assert place.run("tools/setup", "--with=test").returncode == 0
    count = len(place.calls())
    again = place.run("tools/setup")
    assert (again.returncode, again.stdout, len(place.calls())) == (0, "", count)
    assert place.run("tools/setup", "--with", "lint").returncode == 0
    assert place.calls()[-1].endswith(":lint --group " + f"{place.root}/pyproject.toml:test")
    count = len(place.calls())
    assert place.run("tools/setup", "--with", "test,lint").returncode == 0
    assert len(place.calls()) == count


def test_a_changed_pyproject_installs_again_without_a_new_environment(place: Place) -> None:
    assert place.run("tools/setup").returncode == 0
    with open(place.root / "pyproject.toml", "a") as file:
        file.write("\n# changed\n")
    assert place.run("tools/setup").returncode == 0
    calls = place.calls()
    assert sum(call.startswith("python -m venv") for call in calls) == 1
    assert sum("-e " in call for call in calls) == 2


def test_a_broken_environment_is_made_anew(place: Place) -> None:
    assert place.run("tools/setup").returncode == 0
    python = place.root / ".venv/bin/python"
    python.write_text("#!/bin/sh\nexit 127\n")
    assert place.run("tools/setup").returncode == 0
    assert sum(call.startswith("python -m venv") for call in place.calls()) == 2


def test_another_python_gets_a_new_environment_and_says_so(place: Place) -> None:
    assert place.run("tools/setup", PYTHON="python3").returncode == 0
    assert place.run("tools/setup", PYTHON="python3").stdout == ""
    other = '#!/bin/sh\ncase "$*" in "-c import os, sys; print"*) echo "3.12 /opt/other"; exit ;; esac\n'
    place.program("other-python", FAKE_PYTHON.replace("#!/bin/sh\n", other))
    done = place.run("tools/setup", PYTHON="other-python")
    assert done.returncode == 0, done.stderr
    assert "PYTHON=other-python is another, so it is made anew" in done.stdout
    assert sum(call.startswith("python -m venv") for call in place.calls()) == 2
    count = len(place.calls())
    assert place.run("tools/setup", PYTHON="other-python").stdout == ""
    assert place.run("tools/setup").stdout == ""
    assert len(place.calls()) == count


def test_a_python_that_is_named_and_unfit_is_refused(place: Place) -> None:
    place.program("old-python", "exit 1")
    for name in ("old-python", "/no/such/python"):
        done = place.run("tools/setup", PYTHON=name)
        assert done.returncode == 1 and f"PYTHON={name} is not a Python 3.11 to 3.14 that runs" in done.stderr
    assert place.calls() == []


def test_a_moved_clone_gets_a_new_environment(place: Place) -> None:
    assert place.run("tools/setup").returncode == 0
    place.root = place.root.rename(place.root.with_name("moved"))
    assert place.run("tools/setup").returncode == 0
    assert place.calls()[-4:-3] == [f"python -m venv --clear {place.root}/.venv"]


def test_a_failing_pip_shows_the_end_of_its_log_and_leaves_no_stamp(place: Place) -> None:
    done = place.run("tools/setup", PIP_FAILS="1")
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[:20] == [str(number) for number in range(31, 51)]
    assert "repeat the command" in lines[20] and len(lines) == 21
    assert not (place.root / ".venv/setup.stamp").exists()


def test_no_python_says_what_to_install(place: Place, tmp_path: Path) -> None:
    place.program("python3", "exit 1")  # a pyenv shim of a version that is not active
    for name in ("sed", "grep", "dirname", "tr"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    shell = shutil.which("sh") or "/bin/sh"
    done = subprocess.run(
        [shell, str(place.root / "tools/setup")],
        env=place.env | {"PATH": str(place.programs)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "no Python 3.11 to 3.14 was found" in done.stderr


@pytest.mark.parametrize("arguments", [["--with"], ["--with", "docs"], ["--fast"]])
def test_wrong_arguments(place: Place, arguments: list[str]) -> None:
    done = place.run("tools/setup", *arguments)
    assert done.returncode == 1 and done.stderr.startswith("setup: ")
    assert place.calls() == []


def test_termux_upgrades_before_it_installs_and_takes_torch_from_pkg(place: Place) -> None:
    be_termux(place, installed=False)
    done = place.run("tools/setup")
    assert done.returncode == 0, done.stderr
    upgrade, packages, *wishes, venv, project = place.calls()
    assert upgrade.startswith("pkg upgrade -y")
    assert packages == "pkg install -y python python-torch python-numpy python-psutil"
    assert [wish.removeprefix("pkg install -y ") for wish in wishes] == [
        "python-onnxruntime",
        "termux-api",
        "tur-repo",
        "python-tokenizers",
    ]
    assert venv == f"python -m venv --clear --system-site-packages {place.root}/.venv"
    assert project == f"-m pip install -e {place.root}[textual]"


def test_termux_with_its_packages_upgrades_nothing(place: Place) -> None:
    be_termux(place, installed=True)
    assert place.run("tools/setup").returncode == 0
    assert not [call for call in place.calls() if call.startswith("pkg")]


def test_termux_trains_without_packages_that_its_mirror_lacks(place: Place) -> None:
    be_termux(place, installed=False)
    place.program("pkg", 'echo "pkg $*" >>"$CALLS"\ncase "$*" in *tur-repo | *tokenizers) exit 100 ;; esac')
    done = place.run("tools/setup")
    assert done.returncode == 0, done.stderr
    assert "NOT installed (tokenizers, for byte-level BPE)" in done.stdout
    place.program("pkg", "exit 100")
    (place.root / ".venv/setup.stamp").unlink()
    assert place.run("tools/setup").returncode == 1


@pytest.mark.parametrize(
    ("version", "refused"),
    [("2.10.0", True), ("1:2.10.0-1", True), ("2.9.1-2", True), ("2.10", True), ("2.11.0", False), ("2.100", False)],
)
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "offered"])
def test_termux_refuses_torch_that_leaks_before_it_is_installed(
    place: Place, version: str, refused: bool, installed: bool
) -> None:
    be_termux(place, installed=installed)
    if installed:
        place.program("dpkg-query", f"echo {version}")
    else:
        place.program("dpkg-query", "exit 1")
        place.program("apt-cache", f'echo "python-torch:"; echo "  Installed: (none)"; echo "  Candidate: {version}"')
    done = place.run("tools/setup")
    assert (done.returncode == 1) == refused
    assert ("leaks memory" in done.stderr) == refused
    assert ("pkg install -y python python-torch python-numpy python-psutil" in place.calls()) == (
        not installed and not refused
    )


def test_termux_finishes_what_was_interrupted_first(place: Place) -> None:
    be_termux(place, installed=False)
    place.program(
        "dpkg", 'case $1 in --audit) echo half-installed ;; -s) exit 1 ;; *) echo "dpkg $*" >>"$CALLS" ;; esac'
    )
    assert place.run("tools/setup").returncode == 0
    assert place.calls()[0] == "dpkg --configure -a"


def test_termux_refuses_the_test_groups(place: Place) -> None:
    be_termux(place, installed=True)
    done = place.run("tools/setup", "--with", "test,lint")
    assert done.returncode == 1 and "laptop" in done.stderr


def test_quickstart_sets_up_and_passes_its_arguments(place: Place) -> None:
    (place.root / ".venv/bin").mkdir(parents=True)
    (place.root / "tools/setup").write_text('mkdir -p "$(dirname "$0")/../.venv/bin"\n')
    command = place.root / ".venv/bin/ondevice"
    command.write_text('#!/bin/sh\nprintf "%s|" "$PWD" "$@"\n')
    command.chmod(0o755)
    done = place.run("tools/quickstart", "my notes", "--minutes", "5")
    assert done.stdout == "/|quickstart|my notes|--minutes|5|"


def make_checkers(place: Place, *, failing: str = "") -> None:
    tools = place.root / ".venv/bin"
    tools.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports", "pytest"):
        said = "12 passed in 0.10s" if name == "pytest" else name
        lines = ("#!/bin/sh", f'echo "{name} $*" >>"$CALLS"', f'echo "{said}"')
        failure = f'case "{name} $*" in {failing or "none"}) exit 1 ;; esac'
        (tools / name).write_text("\n".join((*lines, failure, "")))
        (tools / name).chmod(0o755)


def test_check_passes_and_ends_with_the_line_of_pytest(place: Place) -> None:
    make_checkers(place)
    done = place.run("tools/check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["== all passed", "12 passed in 0.10s"]
    assert [call.split()[0] for call in place.calls()] == ["ruff", "ruff", "mypy", "lint-imports", "pytest"]
    assert place.calls()[-1] == "pytest -m not slow -n 2 --dist loadfile"


@pytest.mark.parametrize(
    ("failing", "name"),
    [('"ruff check"*', "lint"), ("mypy*", "types"), ("lint-imports*", "imports"), ("pytest*", "tests")],
)
def test_check_goes_on_and_names_what_failed(place: Place, failing: str, name: str) -> None:
    make_checkers(place, failing=failing)
    done = place.run("tools/check")
    assert done.returncode == 1
    assert f"== FAILED: {name}" in done.stdout.splitlines()
    assert len(place.calls()) == 5


def test_fast_leaves_the_tests_out(place: Place) -> None:
    make_checkers(place)
    done = place.run("tools/check", "--fast")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "== all passed"
    assert not [call for call in place.calls() if call.startswith("pytest")]


def test_ci_runs_the_whole_from_anywhere(place: Place) -> None:
    (place.root / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", place.root / ".ci/run")
    (place.root / "tools/test").write_text('echo "$PWD $*"; exit 3\n')
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        [bash, str(place.root / ".ci/run"), "-x"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (3, f"{place.root} -x\n")
