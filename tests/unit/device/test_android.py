"""Android's thermal functions, played by libraries that answer, refuse, crash and hang."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.device import android
from ondevice.device.android import ask_android

CC = shutil.which("cc") or shutil.which("clang")
ACQUIRE = "static int manager; void *AThermal_acquireManager(void) { return &manager; }\n"
STATUS = "int AThermal_getCurrentThermalStatus(void *manager) { return manager ? %s : -1; }\n"
HEADROOM = (
    "float AThermal_getThermalHeadroom(void *manager, int seconds) { return manager && !seconds ? %s : -1.0f; }\n"
)
NAN = '__builtin_nanf("")'

Build = Callable[[str], str]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compiles C to a libandroid.so and gives its path."""
    if CC is None:
        pytest.skip("no C compiler here")

    def compiled(source: str) -> str:
        (tmp_path / "android.c").write_text(source)
        library = str(tmp_path / "libandroid.so")
        subprocess.run([CC, "-shared", "-fPIC", "-o", library, str(tmp_path / "android.c")], check=True)
        return library

    return compiled


def test_status_and_headroom(build: Build) -> None:
    answer = ask_android(library=build(ACQUIRE + STATUS % 2 + HEADROOM % "0.8125f"))
    assert answer.values == {"thermal_status": 2, "headroom": 0.812}
    assert answer.sources == dict.fromkeys(("thermal_status", "headroom"), "Android")
    assert answer.unknown == {}


@pytest.mark.parametrize(
    ("headroom", "words"),
    [
        (HEADROOM % NAN, "says NaN"),
        (HEADROOM % "-1.0f", "says -1"),
        (HEADROOM % "1.0f / 0.0f", "says inf"),
        ("", "version 12"),
    ],
)
def test_a_headroom_that_says_nothing_leaves_the_status(headroom: str, words: str, build: Build) -> None:
    answer = ask_android(library=build(ACQUIRE + STATUS % 0 + headroom))
    assert answer.values == {"thermal_status": 0}
    assert words in answer.unknown["headroom"]


def test_a_status_that_is_an_error_leaves_the_headroom(build: Build) -> None:
    answer = ask_android(library=build(ACQUIRE + STATUS % -1 + HEADROOM % "1.25f"))
    assert answer.values == {"headroom": 1.25}
    assert "-1" in answer.unknown["thermal_status"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int nothing;", "version 11"),
        ("void *AThermal_acquireManager(void) { return 0; }\n" + STATUS % 0, "no thermal manager"),
    ],
)
def test_not_available(source: str, words: str, build: Build) -> None:
    with pytest.raises(LookupError, match=words):
        ask_android(library=build(source))


def test_a_library_that_is_missing_is_a_reason() -> None:
    with pytest.raises(ChildProcessError, match="libandroid-is-not-here"):
        ask_android(library="libandroid-is-not-here.so")


CRASH = "__attribute__((constructor)) static void crash(void) { *(volatile int *)0 = 0; }\n"
HANG = "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { for (;;) sleep(60); }\n"


def test_a_crash_while_loading_kills_the_child_only(build: Build) -> None:
    with pytest.raises(ChildProcessError, match="killed by SIGSEGV"):
        ask_android(library=build(CRASH + ACQUIRE + STATUS % 0))


def test_a_crash_while_asking(build: Build) -> None:
    with pytest.raises(ChildProcessError, match="killed by SIG"):
        ask_android(library=build(ACQUIRE + "int AThermal_getCurrentThermalStatus(void *m) { __builtin_trap(); }"))


def test_a_hang_is_cut_off(build: Build) -> None:
    library = build(HANG + ACQUIRE + STATUS % 0)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.5 s"):
        ask_android(library=library, timeout_s=0.5)
    assert time.monotonic() - began < 3


def test_the_headroom_is_not_asked_more_often_than_android_answers() -> None:
    assert android.PERIOD_S >= 10
