"""Makes any Python believe that it runs in Termux: this folder on PYTHONPATH, the phone's folder in ONDEVICE_PHONE.

Its name for the platform, the attributes that are missing there, and refusals as Android's: no /tmp, no /bin/sh, no
/dev/shm, no load, no uptime. What lies below the phone's folder is allowed, and the program.
"""

import ctypes  # noqa: F401  # asks how Python was built, which it was not for Android
import os
import platform
import sys

import psutil  # noqa: F401  # the package of Termux knows the platform, ours does not

platform.uname()  # remembered: from Python 3.13 on Android is asked for it, by its own libc

PHONE = os.environ["ONDEVICE_PHONE"]
PROGRAM = os.path.abspath(f"{__file__}/../../../..")  # which may lie in /tmp itself
MISSING = ("/tmp", "/dev/shm", "/bin", "/usr/bin/env", "/usr/bin/sh")
DENIED = ("/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/vmstat", "/proc/pressure", "/sys/fs/cgroup")
PATHS = ("open", "os.mkdir", "os.listdir", "os.scandir", "os.rename", "os.remove", "subprocess.Popen")


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if event not in PATHS or not args or not isinstance(args[0], str | bytes | os.PathLike):
        return
    path = os.fspath(args[0])
    path = os.fsdecode(path)
    if _below(path, (PHONE, PROGRAM)):
        return
    if _below(path, MISSING):
        raise FileNotFoundError(2, "No such file or directory (this is a phone)", path)
    if _below(path, DENIED):
        raise PermissionError(13, "Permission denied (this is a phone)", path)


for name in ("link", "getloadavg", "copy_file_range", "getxattr", "setxattr", "listxattr"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "android"
sys.addaudithook(_refuse)
