"""A chain of 120 parts whose trainer is really killed ten times ends as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ondevice.run.directory import RunDir
from ondevice.run.files import read_json
from ondevice.run.schedule import schedule_of
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, read_records
from ondevice.run.verify import verify_folder
from tests.tiny import SMALLEST

WISH = """
[data]
split = "hash:0.05"
max_unique_tokens = 46080
[[data.sources]]
path = "text.txt"
document = "line"
[chain]
parts = {parts}
retries = 100
""" + SMALLEST.format(batch=4) + "save_every_s = 1\n"  # fmt: skip


def train(folder, *words):
    command = [sys.executable, "-m", "ondevice", "train", *words, "--quiet"]
    home = str(folder / "home")
    env = {**os.environ, "ONDEVICE_HOME": home, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def learned(run):
    """Hashes of weights and optimizer, and the state but for the time it took and the recipe, which is compared."""
    checkpoint = Store(run.checkpoints).open(run.read_recipe().train.steps)
    state = read_json(checkpoint.path / "state.json")
    files = {name: entry["sha256"] for name, entry in checkpoint.files.items() if name != "state.json"}
    return files, run.read_recipe().sha256, {key: state[key] for key in state if key not in ("train_s", "recipe")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("parts", "kills"), [(120, 10)])
def test_a_long_chain_that_is_killed_ten_times_ends_as_an_undisturbed_one(tmp_path, parts, kills):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    words = ["the", "cat", "sat", "on", "a", "mat", "kar", "kâr", "ılık"]
    text = "\n".join(" ".join(rng.choices(words, k=12)) for _ in range(1400))
    (tmp_path / "text.txt").write_text(text, "utf-8")
    (tmp_path / "wish.toml").write_text(WISH.format(parts=parts), "utf-8")
    assert train(tmp_path, "wish.toml", "--name", "calm").wait() == 0
    calm, wild = (RunDir(tmp_path / "home" / "runs" / name) for name in ("calm", "wild"))
    done, trainer = 0, train(tmp_path, "wish.toml", "--name", "wild")
    while done < kills:
        launches = done
        while trainer.poll() is None and len(launch_files(wild.telemetry)) <= launches:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 2.0))
        assert trainer.poll() is None, "it was over before all kills were made"
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        done += 1
        trainer = train(tmp_path, "wild", *(["--keep-hold"] if rng.random() < 0.5 else []))
    assert trainer.wait() == 0
    assert learned(calm) == learned(wild)
    one, two = (schedule_of(run.read_recipe(), read_records(run.telemetry)) for run in (calm, wild))
    assert one.done == two.done == parts
    losses = [
        [(part.name, part.results["loss"], part.results["val_loss"]) for part in each.parts] for each in (one, two)
    ]
    assert losses[0] == losses[1]
    assert not [finding for finding in verify_folder(wild) if finding.level == "damage"]
