"""What doctor thinks of what it found: facts, storage, a reading and trial imports in, findings out.

Pure judgement, tested as tables. A *problem* means that training cannot work here; a *note* is worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ondevice.cli.doctor_finding import Finding
from ondevice.cli.doctor_phone import upkeep_findings
from ondevice.cli.doctor_remedies import install_command, needs_old_wheel
from ondevice.cli.doctor_sensors import gaps, readable, without_temperature
from ondevice.device.facts import DeviceFacts
from ondevice.device.packages import OPTIONAL, REQUIRED, Trial, major_minor
from ondevice.device.readings import Reading
from ondevice.device.storage import StorageFacts
from ondevice.device.upkeep import Upkeep

__all__ = ["judge"]

_MIN_DISK_MB, _LOW_DISK_MB = 100, 1024
_MIN_RAM_MB, _LOW_RAM_MB = 700, 500  # torch alone rests at about 260 MiB
_USES = {
    "tokenizers": "byte-level BPE",
    "sentencepiece": "sentencepiece BPE",
    "onnxruntime": "running ONNX exports",
    "textual": "the terminal UI",
}
_FACTS = {
    "clusters": "core groups",
    "cpu_model": "processor",
    "cpu_features": "instructions",
    "boot_id": "number of this boot",
    "ram_total_mb": "memory",
    "ram_available_mb": "memory",
    "swap_total_mb": "memory",
    "swap_free_mb": "memory",
    "disk_free_mb": "free disk",
}
_ABILITIES = {
    "writable": "writing",
    "flock": "file locks",
    "atomic_replace": "atomic replacement",
    "fsync_file": "fsync of files",
    "fsync_folder": "fsync of folders",
}


def judge(
    facts: DeviceFacts,
    storage: StorageFacts,
    reading: Reading,
    trials: Mapping[str, Trial],
    *,
    upkeep: Upkeep | None = None,
) -> tuple[Finding, ...]:
    """Everything worth a line, in the order of reading. Training is possible when no finding is a problem.

    ``upkeep`` is None where this is no phone.
    """
    if facts.platform == "windows":
        return (_windows(),)
    return (
        *_device(facts),
        *_memory(facts),
        *_storage(storage),
        *_sensors(facts, reading),
        *(upkeep_findings(facts, upkeep) if upkeep else ()),
        *_torch(facts, trials),
        *_packages(facts, trials),
    )


def _windows() -> Finding:
    remedy = "Install WSL (in PowerShell: wsl --install), then run ondevice inside its Linux."
    return Finding("problem", "device", "Windows is not supported.", remedy, "wsl --install")


def _device(facts: DeviceFacts) -> Iterator[Finding]:
    yield Finding("ok", "device", f"{facts.platform} {facts.arch}, Python {facts.python}")
    if facts.python_bits != 64:
        text = f"Python here is {facts.python_bits}-bit; PyTorch exists for 64-bit only."
        yield Finding("problem", "device", text, "Use a 64-bit system or a 64-bit Termux.")
    yield Finding("ok", "device", _processor(facts))
    if facts.clusters and len(facts.clusters) > 1:
        groups = (f"{len(cluster.cores)} x {cluster.max_mhz} MHz" for cluster in facts.clusters)
        yield Finding("ok", "device", f"Core groups: {', '.join(groups)}")
    if facts.cpu_features is not None:
        present = [name for name, there in facts.cpu_features.items() if there]
        yield Finding("ok", "device", f"Instructions: {' '.join(present) or 'basic ones only'}")
    yield from _termux(facts)
    if facts.unknown:
        names = sorted({_FACTS.get(name, name) for name in facts.unknown})
        yield Finding("note", "device", f"Not readable here: {', '.join(names)} (why: `ondevice doctor --json`)")


def _processor(facts: DeviceFacts) -> str:
    cores = f"{facts.logical_cores or 'unknown number of'} cores"
    if facts.usable_cores and facts.logical_cores and facts.usable_cores < facts.logical_cores:
        cores += f" ({facts.usable_cores} usable now)"
    return f"{facts.cpu_model or 'Processor'}: {cores}"


def _termux(facts: DeviceFacts) -> Iterator[Finding]:
    if facts.termux and facts.termux.flavour == "googleplay":
        text = "This Termux is the Play Store build, a different fork with other packages."
        yield Finding("note", "device", text, "Install Termux from F-Droid or GitHub instead.")
    elif facts.termux:
        yield Finding("ok", "device", f"Termux {facts.termux.version or '(version unknown)'}")
    elif facts.platform == "android":
        yield Finding("note", "device", "Android without Termux is untested.", "Install Termux from F-Droid or GitHub.")
    if facts.proot:
        text = "Inside proot /proc/stat, load and uptime are invented; ondevice does not use them."
        yield Finding("note", "device", text, "Native Termux may be faster or slower: try both.")


def _memory(facts: DeviceFacts) -> Iterator[Finding]:
    total, available = facts.ram_total_mb, facts.ram_available_mb
    if total is None or available is None:
        yield Finding("note", "memory", "Memory cannot be read.", "Give budget.memory_mb yourself.")
        return
    text = f"{available:.0f} of {total:.0f} MiB available"
    if total < _MIN_RAM_MB:
        yield Finding("problem", "memory", f"{text}: too little for PyTorch.", "Use a device with 1 GiB or more.")
    elif available < _LOW_RAM_MB:
        yield Finding("note", "memory", f"{text}: little.", "Close other applications before training.")
    else:
        yield Finding("ok", "memory", text)


def _storage(storage: StorageFacts) -> Iterator[Finding]:
    yield _free_disk(storage)
    where = f"{storage.probed} ({storage.filesystem or 'unknown filesystem'})"
    if storage.fit_for_runs:
        yield Finding("ok", "storage", f"{where}: locks, atomic replacement and fsync work")
    else:
        lacks = ", ".join(_ABILITIES[name] for name in storage.missing)
        remedy = "Keep runs on a real Linux filesystem: ONDEVICE_HOME below $HOME, not on /sdcard or a network drive."
        yield Finding("problem", "storage", f"{where} lacks {lacks}.", remedy, 'export ONDEVICE_HOME="$HOME/ondevice"')
    if storage.symlinks is False and storage.fit_for_runs:
        yield Finding("note", "storage", "No symbolic links here; ondevice needs none.")


def _free_disk(storage: StorageFacts) -> Finding:
    if storage.free_mb is None:
        return Finding("note", "disk", "Free space cannot be read.")
    text = f"{storage.free_mb:.0f} MiB free for {storage.folder}"
    if storage.free_mb < _MIN_DISK_MB:
        return Finding("problem", "disk", f"{text}: too little for a checkpoint.", "Free at least 1 GiB.")
    if storage.free_mb < _LOW_DISK_MB:
        return Finding("note", "disk", f"{text}: little.", "Free some space before a long run.")
    return Finding("ok", "disk", text)


def _sensors(facts: DeviceFacts, reading: Reading) -> Iterator[Finding]:
    for text in readable(reading):
        yield Finding("ok", "sensors", text)
    if consequence := without_temperature(facts, reading):
        yield Finding("note", "sensors", consequence)
    for gap in gaps(facts, reading):
        yield Finding("note", "sensors", gap.text, gap.remedy, gap.command)


def _torch(facts: DeviceFacts, trials: Mapping[str, Trial]) -> Iterator[Finding]:
    version, command = facts.packages["torch"], install_command("torch", facts)
    trial = trials.get("torch")
    if version is None:
        yield Finding("problem", "packages", "torch is not installed.", "Install it:", command)
        return
    if refusal := _refused_version(version, facts):
        yield Finding("problem", "packages", refusal, "Install another version:", command)
    elif trial is not None and trial.ok is None:
        yield _untried("torch", version, trial)
    elif trial is not None and not trial.ok:
        yield _torch_fails(version, facts, trial, command)
    elif needs_old_wheel(facts) and (major_minor(version) or (0, 0)) >= (2, 10):
        text = f"torch {version} on an ARMv8.0 core: the wheels of 2.10 and later may die with SIGILL."
        yield Finding("note", "packages", text, "If it does, use 2.9.1, or native Termux with its own torch:", command)
    else:
        yield Finding("ok", "packages", f"torch {version}" + (" imports and computes" if trial else ""))


def _refused_version(version: str, facts: DeviceFacts) -> str | None:
    known = major_minor(version)
    if known is None:
        return None
    if facts.native_termux and known < (2, 11):
        return f"torch {version} leaks memory in Termux until the system dies; 2.11 or later is needed."
    if known < (2, 9):
        return f"torch {version} is too old; 2.9 or later is needed."
    return None


def _untried(name: str, version: str, trial: Trial) -> Finding:
    return Finding("note", "packages", f"{name} {version} is installed; whether it works is unknown: {trial.detail}.")


def _torch_fails(version: str, facts: DeviceFacts, trial: Trial, command: str) -> Finding:
    text = f"torch {version} is installed but fails: {trial.detail}"
    if trial.signal == "SIGILL":
        text += ": it was built for a newer processor than this one."
        return Finding("problem", "packages", text, "Use torch 2.9.1, or native Termux with its own torch:", command)
    if facts.native_termux:
        return Finding("problem", "packages", text, "Most often a partial upgrade; upgrade everything:", command)
    return Finding("problem", "packages", text, "Install it again:", f"{command} --force-reinstall")


def _packages(facts: DeviceFacts, trials: Mapping[str, Trial]) -> Iterator[Finding]:
    for name in (*REQUIRED[1:], *OPTIONAL):
        yield _package(name, facts, trials.get(name))


def _package(name: str, facts: DeviceFacts, trial: Trial | None) -> Finding:
    version, command = facts.packages[name], install_command(name, facts)
    bad = "problem" if name in REQUIRED else "note"
    use = f" ({_USES[name]})" if name in _USES else ""
    if version is None:
        return Finding(bad, "packages", f"{name}{use} is not installed.", "Install it:", command)
    if trial is not None and trial.ok is None:
        return _untried(name, version, trial)
    if trial is not None and not trial.ok:
        text = f"{name} {version}{use} is installed but fails: {trial.detail}"
        return Finding(bad, "packages", text, "Install it again:", command)
    return Finding("ok", "packages", f"{name} {version}")
