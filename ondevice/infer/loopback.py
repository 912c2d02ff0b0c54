"""Which addresses only this machine itself can reach."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]

_LOCAL_NAMES = ("localhost", "localhost.localdomain")


def is_loopback(host: str) -> bool:
    """Whether an address, or a name of it, is this machine alone."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
