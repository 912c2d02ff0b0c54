"""The page as a browser lays it out: nothing wider than a phone, and a drawing that is not empty."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ondevice.cli.main import main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]

# Tells how wide the page is; only this test's copy has it, without the policy that forbids it.
MEASURE = "<script>document.title='w'+document.documentElement.scrollWidth+'/'+innerWidth</script></body>"


def chromium(*words: str) -> str:
    assert BROWSER is not None
    plain = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    done = subprocess.run([BROWSER, *plain, *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.parametrize(("width", "height"), [(500, 844), (1280, 900)])
def test_it_fits_the_screen_and_shows_something(told, tmp_path, width, height):
    assert main(["report", "told", "--out", str(tmp_path / "out")]) == 0
    page = tmp_path / "out" / "report.html"
    html = page.read_text("utf-8")
    copy = tmp_path / "measured.html"
    copy.write_text(re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", MEASURE), "utf-8")
    dom = chromium(f"--window-size={width},{height}", "--dump-dom", copy.as_uri())
    found = re.search(r"<title>w(\d+)/(\d+)</title>", dom)
    assert found and int(found[1]) <= int(found[2])  # tables that are wider scroll in their own box
    shot = tmp_path / "shot.png"
    chromium(f"--window-size={width},{height}", f"--screenshot={shot}", page.as_uri())
    assert shot.read_bytes().startswith(b"\x89PNG") and len(shot.read_bytes()) > 20_000


def test_a_phone_of_360_pixels_sees_all_of_it(told, tmp_path):
    """Headless windows are never narrower than 500, so the page is looked at through a frame."""
    assert main(["report", "told", "--out", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "report.html").read_text("utf-8")
    inner = re.sub(r"<meta http-equiv[^>]*>", "", html)
    measure = MEASURE.replace("document.title=", "parent.document.title=")
    Path(tmp_path / "inner.html").write_text(inner.replace("</body>", measure), "utf-8")
    frame = '<title>-</title><iframe src="inner.html" width="360" height="740" style="border:0"></iframe>'
    (tmp_path / "frame.html").write_text(frame, "utf-8")
    words = ["--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom"]
    found = re.search(r"<title>w(\d+)/(\d+)</title>", chromium(*words, (tmp_path / "frame.html").as_uri()))
    assert found and (int(found[1]), int(found[2])) == (360, 360)
