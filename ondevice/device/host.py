"""Which system this is: Android with Termux, Linux (perhaps inside proot), macOS, or one that is refused.

Pure functions of the environment, ``sys.platform`` and /proc/version, so that a test can be any phone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "RELAUNCHED",
    "Termux",
    "existing_ancestor",
    "find_termux",
    "in_proot",
    "is_relaunched",
    "is_scheduled",
    "on_android",
    "platform_name",
]

RELAUNCHED = "ONDEVICE_RELAUNCHED"  # 1 in the environment of a trainer that something starts again
_SCHEDULED = Path(".termux/ondevice/scheduled")  # below the home, while Android runs the watchdog

_RELEASES = {"F_DROID": "fdroid", "GITHUB": "github", "GOOGLE_PLAY_STORE": "googleplay"}
_PLATFORMS = {"android": "android", "darwin": "macos", "win32": "windows", "cygwin": "windows", "msys": "windows"}


@dataclass(frozen=True)
class Termux:
    """The Termux application. ``flavour`` is fdroid, github or googleplay; None where the app does not tell."""

    version: str | None
    flavour: str | None


def platform_name() -> str:
    """android, linux, macos, windows, or ``sys.platform`` of anything else. A Linux inside proot is linux."""
    if hasattr(sys, "getandroidapilevel"):  # Termux's Python before 3.13 called its platform linux
        return "android"
    return _PLATFORMS.get(sys.platform, "linux" if sys.platform.startswith("linux") else sys.platform)


def find_termux(env: Mapping[str, str]) -> Termux | None:
    """Termux around this process, native or as the host of proot; None elsewhere."""
    version = env.get("TERMUX_VERSION") or None
    # Widgets, boot scripts and notification buttons start with a bare environment: the prefix still tells. A Linux in
    # proot has Termux's commands at the end of its PATH.
    if version is None and "com.termux" not in f"{env.get('PREFIX', '')} {env.get('PATH', '')} {sys.prefix}":
        return None
    if version and version.startswith("googleplay."):
        return Termux(version, "googleplay")
    release = env.get("TERMUX_APK_RELEASE") or env.get("TERMUX_APP__APK_RELEASE") or ""
    return Termux(version, _RELEASES.get(release))


def on_android(env: Mapping[str, str]) -> bool:
    """Whether Android rules over this process, natively or from outside proot: a handheld device whose system kills.

    The one place that decides it. Where packages come from ``pkg`` is `platform_name`'s business.
    """
    inherited = "ANDROID_ROOT" in env and "ANDROID_DATA" in env  # proot passes them on; no development kit sets both
    return platform_name() == "android" or find_termux(env) is not None or inherited


def is_relaunched(env: Mapping[str, str]) -> bool:
    """Whether a trainer that leaves is started again: who started it said so, or Termux's watchdog is scheduled."""
    told = env.get(RELAUNCHED)
    return told == "1" if told is not None else is_scheduled(env)


def is_scheduled(env: Mapping[str, str]) -> bool:
    """Whether Android was asked to start the watchdog from time to time."""
    return on_android(env) and (Path(env.get("HOME") or "/") / _SCHEDULED).is_file()


def in_proot(env: Mapping[str, str], *, proc: Path) -> bool:
    """Whether proot translates our system calls (and serves an invented /proc/stat)."""
    if any(name.startswith("PROOT_") for name in env):
        return True
    try:
        return "proot" in (proc / "version").read_text().lower()
    except OSError:
        return False  # Android denies /proc/version; proot-distro always shows its own


def existing_ancestor(folder: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    folder = Path(folder).expanduser().absolute()
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path(folder.anchor))
