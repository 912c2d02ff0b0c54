"""The processor: its name, its cores grouped by speed, and the instructions that decide which torch runs on it.

Parses /proc/cpuinfo and /sys/devices/system/cpu; on macOS the text of ``sysctl``. Knows no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cluster", "clusters", "cpu_features", "cpu_model", "is_arm", "mac_features", "parse_cpuinfo"]

Block = dict[str, str]

ARM_FEATURES = ("atomics", "asimddp", "i8mm", "bf16")
X86_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx")
_FLAG_NAMES = {"amx": "amx_bf16"}  # the kernel lists the parts of AMX; bf16 matrix products are the part that matters
_MAC_NAMES = {
    "atomics": "hw.optional.arm.FEAT_LSE",
    "asimddp": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "bf16": "hw.optional.arm.FEAT_BF16",
    "avx2": "hw.optional.avx2_0",
    "avx512f": "hw.optional.avx512f",
}
# "CPU part" of implementer 0x41; phones seldom print a model name.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0D: "Cortex-A77",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}


@dataclass(frozen=True)
class Cluster:
    """Cores of one top speed. ``max_mhz`` is cpuinfo_max_freq; ``cores`` are logical core numbers."""

    max_mhz: int
    cores: tuple[int, ...]


def is_arm(arch: str) -> bool:
    """Whether a machine name (``uname -m``) is an Arm one."""
    return arch.lower().startswith(("aarch64", "arm"))


def parse_cpuinfo(text: str) -> list[Block]:
    """One dictionary a processor; keys before the first ``processor`` line or in a trailer are a block of their own."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in paragraph.splitlines() if ":" in line)
        block = {key.strip(): value.strip() for key, _, value in pairs}
        if block:
            blocks.append(block)
    return blocks


def core_count(blocks: Sequence[Block]) -> int:
    """Logical cores listed. Raises LookupError when none is."""
    count = sum("processor" in block for block in blocks)
    if not count:
        raise LookupError("no processor in cpuinfo")
    return count


def cpu_model(blocks: Sequence[Block]) -> str:
    """A name for a person, such as ``"4x Cortex-A55 + 4x Cortex-A76"``. Raises LookupError when there is none."""
    for key in ("model name", "Hardware"):
        for block in blocks:
            if block.get(key):
                return block[key]
    parts = Counter(_arm_part(block) for block in blocks if "CPU part" in block)
    if not parts:
        raise LookupError("cpuinfo names no model")
    return " + ".join(f"{count}x {name}" for name, count in parts.items())


def _arm_part(block: Block) -> str:
    implementer, part = block.get("CPU implementer", "?"), block["CPU part"]
    if implementer.lower() == "0x41":
        return _ARM_PARTS.get(int(part, 16), f"Arm part {part}")
    return f"part {part} of implementer {implementer}"


def cpu_features(blocks: Sequence[Block], *, arch: str) -> dict[str, bool]:
    """The features of interest, true only where every core has them. Raises LookupError when none is listed."""
    lists = [set(text.split()) for block in blocks if (text := block.get("Features") or block.get("flags"))]
    if not lists:
        raise LookupError("cpuinfo lists no features")
    common = set.intersection(*lists)
    names = ARM_FEATURES if is_arm(arch) else X86_FEATURES
    return {name: _FLAG_NAMES.get(name, name) in common for name in names}


def mac_features(sysctl: str, *, arch: str) -> dict[str, bool]:
    """The same from the text of ``sysctl hw.optional``; an instruction that is not listed is absent."""
    pairs = (line.partition(":") for line in sysctl.splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    names = ARM_FEATURES if is_arm(arch) else X86_FEATURES
    return {name: values.get(_MAC_NAMES.get(name, "")) == "1" for name in names}


def clusters(sysfs: Path) -> tuple[Cluster, ...]:
    """Cores grouped by top speed, fastest first; offline cores are left out. Raises OSError or LookupError."""
    folders = [path for path in (sysfs / "devices/system/cpu").iterdir() if re.fullmatch(r"cpu\d+", path.name)]
    speeds: dict[int, list[int]] = {}
    problem: Exception = LookupError("no core listed in /sys")
    for core in folders:
        try:
            khz = int((core / "cpufreq/cpuinfo_max_freq").read_text())
        except (OSError, ValueError) as error:
            problem = error
            continue
        speeds.setdefault(khz // 1000, []).append(int(core.name[3:]))
    if not speeds:
        raise problem
    return tuple(Cluster(mhz, tuple(sorted(cores))) for mhz, cores in sorted(speeds.items(), reverse=True))
