"""``ondevice serve`` as a person starts it: a program that is asked, interrupted, and refuses what is unsafe."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest


def test_a_run_is_served_until_ctrl_c(reading):
    words = [sys.executable, "-m", "ondevice", "serve", "tiny", "--port", "0", "--json", "--threads", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            told = json.loads(program.stdout.readline())
            assert told["model"] == "tiny" and told["key"] is False
            body = {"model": "tiny", "prompt": "the cat", "max_tokens": 4, "temperature": 0}
            asked = urllib.request.Request(
                f"{told['url']}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=60) as answer:
                done = json.load(answer)
            assert done["usage"]["prompt_tokens"] == 7 and done["object"] == "text_completion"
        finally:
            program.send_signal(signal.SIGINT)
            _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "a key is needed"),
        (("--host", "nowhere.invalid", "--api-key-file", "key"), "cannot listen"),
        (("--port", "70000"), "cannot listen"),
        (("--api-key-file", "absent"), "cannot be read as a key"),
        (("--api-key-file", "empty"), "a key is one line"),
        (("--limit", "max_batery_c=38"), "max_battery_c"),
        (("--limit", "max_battery_c"), "KEY=VALUE"),
        (("--step", "99"), "99"),
    ],
)
def test_what_is_wrong_is_said(reading, call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("s3cret\n")
    (tmp_path / "empty").write_text("\n")
    result = call("serve", "tiny", *words)
    assert result.code in (2, 3, 4) and said in result.error
