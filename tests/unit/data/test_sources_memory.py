"""Memory does not grow with the input: not with the size of a file, not with the length of its lines."""

import subprocess
import sys

import pytest

PROGRAM = '''
import resource, sys
from pathlib import Path
from ondevice.data.documents import Problems
from ondevice.data.duplicates import document_hash
from ondevice.data.sources import iter_documents
from ondevice.run.schema import SourceConfig

def peak_mb():
    """Of this program alone: ru_maxrss would start with what the process that forked it had in use."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

path, document, bad = sys.argv[1:]
problems, total = Problems(), 0
source = SourceConfig(path=path, document=document, format="text")
for text in iter_documents(source, base=Path("."), bad_utf8=bad, problems=problems):
    document_hash(text.text)
    total += len(text.text)
print(peak_mb(), total, problems.count("invalid_utf8_line"))
'''
LINE = "Uzun bir metnin bir satırı, sonra bir başkası. ".encode()


def run(path, document="file", bad="skip_line") -> tuple[float, int, int]:
    command = [sys.executable, "-c", PROGRAM, str(path), document, bad]
    peak, total, lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(peak), int(total), int(lines)


def write(path, megabytes: int, end: bytes) -> int:
    """Fills a file with lines that end so; returns its length in characters."""
    part = (LINE * 3 + end) * 7000
    count = megabytes * 1_000_000 // len(part)
    with open(path, "wb") as file:
        for _ in range(count):
            file.write(part)
    return count * len(part.decode())


@pytest.mark.parametrize("megabytes", [80, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("document", "end"), [("file", b"\n\n"), ("file", b" "), ("paragraph", b"\n\n"), ("line", b" ")]
)
def test_memory_is_flat(tmp_path, megabytes, document, end):
    write(tmp_path / "small.txt", 14, end)
    small, _, _ = run(tmp_path / "small.txt", document)
    characters = write(tmp_path / "large.txt", megabytes, end)
    large, total, _ = run(tmp_path / "large.txt", document)
    assert large - small <= 20
    assert 0.95 * characters <= total <= characters  # paragraphs leave out what is between them


@pytest.mark.parametrize(("bad", "lines"), [("skip_line", 1), ("skip_document", 0)])
def test_a_bad_byte_at_the_end_of_a_line_of_100_mb_takes_the_line_out(tmp_path, bad, lines):
    characters = write(tmp_path / "a.txt", 100, b" ")
    with open(tmp_path / "a.txt", "ab") as file:
        file.write(b"\xff\nshort\n")
    (tmp_path / "b.txt").write_text("other")
    peak, total, count = run(tmp_path, bad=bad)
    assert (total, count) == (11 if bad == "skip_line" else 5, lines)
    assert total < characters
    assert peak < 100
