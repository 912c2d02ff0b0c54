"""What every test may rely on: torch's process-wide switches are put back."""

import gc
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine and its other work, not about what is tested.
settings.register_profile("ondevice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ondevice")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite started in the background ignores Ctrl-C, and so would every program it starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """What the test modules imported stays anyway; a program under test that collects garbage need not look through it.

    Each of its collections took a tenth of a second beside torch and transformers."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """A launch flushes denormals and sets threads for its whole process; later tests must not feel it."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    torch = sys.modules.get("torch")
    if torch:
        torch.set_flush_denormal(False)
        if threads:
            torch.set_num_threads(threads)
