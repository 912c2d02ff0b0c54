"""The exact command that installs a package on this platform. Pure: facts in, text out."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path

from ondevice.device.facts import DeviceFacts

__all__ = ["TERMUX_API", "TORCH_WHEEL", "install_command", "needs_old_wheel"]

TORCH_WHEEL, TORCH_WHEEL_ARMV80 = "torch==2.13.0", "torch==2.9.1"
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# A partial upgrade is what breaks most imports in Termux, so every install begins with an upgrade.
_PKG = "pkg upgrade && pkg install {}"
TERMUX_API = _PKG.format("termux-api")
_TERMUX = {
    "torch": _PKG.format("python-torch"),
    "numpy": _PKG.format("python-numpy"),
    "psutil": _PKG.format("python-psutil"),
    "onnxruntime": _PKG.format("python-onnxruntime"),
    "tokenizers": _PKG.format("tur-repo") + " && pkg install python-tokenizers",
    "sentencepiece": _PKG.format("clang cmake") + " && LDFLAGS=-llog {pip} sentencepiece",
}


def needs_old_wheel(facts: DeviceFacts) -> bool:
    """An ARMv8.0 core outside native Termux: the wheels of torch from 2.10 on use instructions it does not have."""
    lacks_atomics = (facts.cpu_features or {}).get("atomics") is False
    return lacks_atomics and facts.platform != "macos" and not facts.native_termux


def install_command(package: str, facts: DeviceFacts) -> str:
    """A line to paste, such as ``pkg upgrade && pkg install python-torch`` or ``.venv/bin/pip install textual``."""
    if facts.native_termux:
        return _TERMUX.get(package, "{pip} " + package).format(pip=_pip())
    if package == "torch":
        return _torch_wheel(facts)
    return f"{_pip()} {package}"


def _torch_wheel(facts: DeviceFacts) -> str:
    wheel = TORCH_WHEEL_ARMV80 if needs_old_wheel(facts) else TORCH_WHEEL
    if facts.platform == "macos":
        return f"{_pip()} {wheel}"
    return f"{_pip()} {wheel} --extra-index-url {_CPU_INDEX}"  # plain torch would bring gigabytes of CUDA


def _pip() -> str:
    """``pip install`` of the environment that runs now, as short as it can be typed here."""
    if sys.prefix == sys.base_prefix:
        return f"python{'.'.join(platform.python_version_tuple()[:2])} -m pip install"
    pip = Path(sys.prefix) / "bin/pip"
    if pip.is_relative_to(Path.cwd()):
        return f"{shlex.quote(str(pip.relative_to(Path.cwd())))} install"
    if pip.is_relative_to(Path.home()):
        return f"~/{shlex.quote(str(pip.relative_to(Path.home())))} install"
    return f"{shlex.quote(str(pip))} install"
