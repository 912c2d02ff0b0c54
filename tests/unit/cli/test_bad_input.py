"""Bad input through the command line: each kind ends in one sentence that says what, where and what to do, with the
right exit code, without a traceback, with nothing half-written; and the same command works once the input is mended."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ondevice.run import files
from ondevice.run.config import explain


def sets(*changes):
    """``--set`` for each."""
    return tuple(word for change in changes for word in ("--set", change))


BYTE = sets("tokenizer.kind=byte")
SMALL = sets("model.context=32", "model.width=16", "model.layers=1", "train.steps=2", "train.batch=2", "sample.count=0")
PLAIN = sets("train.precision=fp32", "fit.threads=1", "limits.min_free_disk_mb=0")
GOOD = b"".join(b"line %d of a text that is long enough to learn from\n" % number for number in range(300))
SECOND = GOOD[: GOOD.index(b"40")].rpartition(b"\n")[0] + b"\n"
BINARY = bytes(range(256)) * 40


def rows(count, broken=()):
    return b"".join(
        b'{"text": broken\n' if number in broken else b'{"title": "t", "text": "row %d"}\n' % number
        for number in range(1, count + 1)
    )


def config(text):
    return ('[[data.sources]]\npath = "words.txt"\n[tokenizer]\nkind = "byte"\n' + text).encode()


@dataclass
class Case:
    """A command on bad files, what it must say, and the files that mend it."""

    words: tuple[str, ...]
    code: int
    says: tuple[str, ...]
    bad: dict[str, bytes] = field(default_factory=dict)
    good: dict[str, bytes] = field(default_factory=dict)
    good_words: tuple[str, ...] = ()


def build(path, *, says, bad, good=GOOD, flags=(), code=3):
    """``data build --data PATH`` with bad content, then with good content."""
    return Case(
        ("data", "build", "--data", path, *BYTE, *flags),
        code,
        says,
        {path: bad} if bad is not None else {},
        {path: good},
    )


def keys(text, *, says, good="", command=("data", "build"), code=2):
    """A config file with a bad key, then without it."""
    return Case((*command, "my.toml"), code, ("my.toml", *says), {"my.toml": config(text)}, {"my.toml": config(good)})


GRADED = b'[[data.sources]]\npath = "rows.jsonl"\nscore_field = "grade"\n'
CASES = {
    "missing path": build("notes.txt", bad=None, says=("notes.txt: no such file or folder", "check the path")),
    "empty file": build("notes.txt", bad=b"", says=("notes.txt: no text was found", "name a file or folder with text")),
    "file of spaces": build("notes.txt", bad=b" \n\t\n" * 9, says=("notes.txt: no text was found",)),
    "binary file": build("notes.txt", bad=BINARY, says=("notes.txt is not text", "binary", "name a text file")),
    "empty folder": Case(
        ("data", "build", "--data", "empty", *BYTE),
        3,
        ("empty: the folder holds no file", "name one that holds text"),
        good={"empty/a.txt": GOOD},
    ),
    "folder of binary files": build(
        "notes/a.txt", bad=BINARY, says=("a.txt is not text",), flags=("--set", "data.split=tail:0.1")
    ),
    "invalid UTF-8 refused": build(
        "notes.txt",
        bad=GOOD + b"bad \xff byte\n",
        says=("notes.txt:301:", "not valid UTF-8", "iconv", "skip_line"),
        flags=("--set", "data.bad_utf8=refuse"),
    ),
    "JSONL with a broken line 7,000": build(
        "rows.jsonl", bad=rows(7100, {7000}), good=rows(7100), says=("rows.jsonl:7000:", "correct or delete this line")
    ),
    "JSONL without the field": build(
        "rows.jsonl",
        bad=b'{"texts": "a", "id": 3}\n',
        good=rows(300),
        says=("rows.jsonl:1:", "no field 'text'", "did you mean 'texts'?", "text_field"),
    ),
    "JSONL with a number for text": build(
        "rows.jsonl", bad=b'{"text": 5}\n', good=rows(300), says=("rows.jsonl:1:", "'text'")
    ),
    "JSONL with a score that is none": Case(
        ("data", "build", "my.toml", *BYTE),
        3,
        ("rows.jsonl:2:", "the field 'grade' holds nan", "a score is a number from"),
        {"rows.jsonl": b'{"text": "a", "grade": 3}\n{"text": "b", "grade": NaN}\n', "my.toml": GRADED},
        {
            "rows.jsonl": b"".join(b'{"text": "row %d", "grade": %d}\n' % (i, i % 7) for i in range(200)),
            "my.toml": GRADED,
        },
    ),
    "JSONL that is a list": build("rows.jsonl", bad=b'["a"]\n', good=rows(300), says=("rows.jsonl:1:",)),
    "gz that is cut": build("notes.txt.gz", bad=b"\x1f\x8b\x08\0\0\0", good=None, says=("notes.txt.gz",)),
    "zip that is none": build("notes.zip", bad=b"PK\x03\x04 no", good=None, says=("notes.zip",)),
    "two sources of one name": Case(
        ("data", "build", "two.toml", *BYTE),
        3,
        ("Two sources are called 'a'", "another name"),
        {
            "one/a.txt": GOOD,
            "two/a.txt": GOOD[:500],
            "two.toml": b'[[data.sources]]\npath = "one/a.txt"\n[[data.sources]]\npath = "two/a.txt"\n',
        },
        {"two.toml": b'[[data.sources]]\npath = "one/a.txt"\n[[data.sources]]\npath = "two/a.txt"\nname = "b"\n'},
        ("data", "build", "two.toml", *BYTE),
    ),
    "one source named twice": Case(
        ("data", "build", "--data", "words.txt", "--data", "./words.txt", *BYTE),
        2,
        ("words.txt: named twice with --data", "name it once"),
    ),
    "corpus smaller than one block": Case(
        ("train", "--data", "notes.txt", "--name", "small", *BYTE, *SMALL, *PLAIN),
        3,
        ("smaller than one block", "33", "add text", "model.context"),
        {"notes.txt": b"ten tokens"},
        {"notes.txt": GOOD},
    ),
    "vocabulary larger than the corpus supports": Case(
        ("data", "build", "--data", "words.txt", *sets("tokenizer.kind=bpe", "tokenizer.vocab_size=50000")),
        3,
        ("tokenizer.vocab_size = 50000", "more than this text supports", "at most", "or add text"),
        good_words=("data", "build", "--data", "words.txt", *sets("tokenizer.kind=bpe", "tokenizer.vocab_size=270")),
    ),
    "misspelt key": keys("[train]\nstpes = 5\n", says=("'train.stpes'", "did you mean 'steps'", ":6")),
    "misspelt table": keys("[trian]\nsteps = 5\n", says=("'trian'", "did you mean 'train'")),
    "wrong type": keys('[train]\nsteps = "many"\n', says=("'train.steps'", "whole number", "'many'")),
    "fraction for a whole number": keys("[train]\nsteps = 2.5\n", says=("'train.steps'", "whole number", "2.5")),
    "truth for a number": keys("[train]\nsteps = true\n", says=("'train.steps'", "whole number")),
    "negative number": keys("[train]\nlr = -0.1\n", says=("'train.lr'", "more than 0", "-0.1")),
    "zero layers": keys("[model]\nlayers = 0\n", says=("'model.layers'", "at least 1")),
    "not finite": keys("[train]\nlr = inf\n", says=("'train.lr'", "finite")),
    "unknown order policy": keys(
        '[data]\norder = "suffled"\n',
        says=("'data.order'", "suffled", "shuffled", "sequential", "proportional"),
    ),
    "impossible split": Case(
        ("data", "build", "--data", "words.txt", *BYTE, "--set", "data.split=hash:2"), 2, ("data.split", "hash:0.05")
    ),
    "broken TOML": keys("[train\nsteps = 5\n", says=(":5", "not valid TOML")),
    "config that is a folder": Case(("data", "build", "my.toml"), 2, ("my.toml", "cannot be read"), {"my.toml/x": b""}),
    "--set of an unknown key": Case(
        ("data", "build", "--data", "words.txt", *BYTE, "--set", "tran.lr=1"), 2, ("'tran'", "did you mean 'train'")
    ),
    "--set without a value": Case(
        ("data", "build", "--data", "words.txt", *BYTE, "--set", "train.lr"), 2, ("--set train.lr", "key=value")
    ),
    "a device that nobody simulates": Case(
        ("train", "--data", "words.txt", *BYTE, "--device", "sim:galaxy-s25"),
        2,
        ("'galaxy-s25'", "did you mean 'galaxy-s25plus'", "laptop"),
    ),
    "misspelt weather": Case(
        ("train", "--data", "words.txt", *BYTE, "--device", "sim:laptop,ambiant=33"), 2, ("did you mean 'ambient'",)
    ),
    "speed of this machine": Case(
        ("train", "--data", "words.txt", *BYTE, "--speed", "60"), 2, ("--speed", "name one with --device")
    ),
    "minutes below nothing": Case(
        ("plan", "--data", "words.txt", *BYTE, "--minutes", "-1"), 2, ("--minutes", "more than 0", "-1")
    ),
    "empty path": Case(("data", "build", "--data", "", *BYTE), 2, ("path of the text is empty",)),
}


SMALLEST = ("--data", "notes.txt", *BYTE, *SMALL, *PLAIN)
EXTREMES = {
    "minutes": (("--minutes", "1e308"), "'budget.minutes' must be at most 1,000,000, not 1e+308"),
    "memory's unit": (("--memory", "1.2TB"), "--memory: '1.2TB' is no size; give MB, such as 800, or 1.2GB"),
    "memory in GB": (("--memory", "9000 gb"), "'budget.memory_mb' 9,216,000 is more than the"),
    "memory": (("--memory", "1e7"), "'budget.memory_mb' 10,000,000 is more than the"),
    "little memory": (("--memory", "1e-300"), "0 MB may be used"),
    "batch": (sets("train.batch=1000000000"), "'train.batch' must be at most 65,536, not 1000000000"),
    "batch x context": (
        sets("train.batch=65536", "model.context=512"),
        "'train.batch' 65,536 with a context of 512 makes 33,554,432 tokens a step; at most 16,777,216 are allowed",
    ),
    "threads": (sets("fit.threads=1099511627776"), "'fit.threads' must be at most 256, not 1099511627776"),
    "width": (sets("model.width=1e15"), "'model.width' must be at most 65,536"),
    "largest shape": (sets("model.width=65536", "model.layers=1000"), "MB may be used; make model.width"),
    "evaluations": (sets("eval.count=1e15"), "'eval.count' must be at most 10,000"),
    "context": (sets("model.context=65536", "train.batch=1"), "smaller than one block"),
    "odd heads": (
        sets("model.width=33", "model.heads=1"),
        "model.width = 33 with model.heads = 1 makes heads 33 wide, but rotary embeddings need an even number",
    ),
    "odd width": (sets("model.width=33"), "makes heads 33 wide, but rotary embeddings need an even number"),
}


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers_are_one_sentence(place, call, name, command):
    flags, says = EXTREMES[name]
    (place / "notes.txt").write_bytes(GOOD)
    result = call(command, *SMALLEST, *flags)
    assert result.code in (2, 3, 5)
    refused(result, result.code, (says,))
    assert not (place / "home" / "logs").exists() and not (place / "home" / "runs").exists()


def test_the_largest_numbers_that_are_allowed_can_be_planned(place, call):
    """Every bound of the config, one key at a time: a plan or a sentence, never a bug."""
    (place / "notes.txt").write_bytes(GOOD)
    tables = ("model", "train", "budget", "eval", "sample", "fit", "limits")
    for row in explain():
        if "at most" not in row["bounds"] or row["key"].split(".")[0] not in tables:
            continue
        largest = row["bounds"].rpartition("at most ")[2].replace(",", "")
        budget = () if row["key"] in ("train.tokens", "train.epochs") else sets("train.steps=2")
        flags = ("--data", "notes.txt", *BYTE, *sets("model.context=32", "model.width=16", "model.layers=1"), *budget)
        result = call("plan", *flags, *PLAIN, "--rate", "1000", "--json", "--set", f"{row['key']}={largest}")
        assert result.code in (0, 2, 3, 5), (row["key"], result)
        assert not (place / "home" / "logs").exists(), row["key"]


def tree(home):
    """Every path below the runs, and every leftover of a killed or failed writer anywhere."""
    runs = {str(path.relative_to(home)) for path in (home / "runs").rglob("*")}
    return runs | {str(path.relative_to(home)) for path in home.rglob("*") if ".tmp-" in path.name}


def write(place, contents):
    for name, data in contents.items():
        if data is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)


def refused(result, code, says):
    """One sentence, the right code, no traceback, no crash log."""
    assert result.code == code, result
    for text in says:
        assert text in result.error, result.error
    assert "Traceback" not in result.err + result.out
    assert result.error.endswith(".")
    assert result.err.count("error:") == 1


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing_half_written(place, call, name):
    case, home = CASES[name], place / "home"
    if "bpe" in " ".join(case.words):
        pytest.importorskip("tokenizers")
    if name == "empty folder":
        (place / "empty").mkdir()
    write(place, case.bad)
    for words in (case.words, (*case.words, "--json")):
        result = call(*words)
        refused(result, case.code, case.says)
        assert not (home / "logs").exists()
        assert tree(home) == set()
        assert not list(home.glob("datasets/*/dataset.json")) or case.words[0] == "train"
    assert json.loads(result.out.splitlines()[-1])["exit_code"] == case.code
    mended = case.good_words or (case.words if any(case.good.values()) else ())
    if mended:
        write(place, case.good)
        assert call(*mended).code == 0
        assert not [path for path in home.rglob("*") if ".tmp-" in path.name]


def test_invalid_utf8_is_counted_and_reported_and_the_rest_is_learned(place, call):
    (place / "notes.txt").write_bytes(GOOD + b"bad \xff byte\n" + SECOND + b"\xc3\n")
    result = call("data", "build", "--data", "notes.txt", *BYTE, "--json")
    assert result.code == 0
    total = result.json["totals"]
    assert total["train_bytes"] + total["val_bytes"] == len(GOOD) + len(SECOND)
    text = call("data", "build", "--data", "notes.txt", *BYTE).out
    assert "2 lines with invalid UTF-8 left out (notes.txt:301, " in text


def long_line(path, size):
    rng = random.Random(5)
    words = " ".join("".join(rng.choices("abcdefgh", k=5)) for _ in range(1 << 17)).encode() + b" "
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(b"%d " % file.tell() + words)
        file.truncate(size)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("size_mb", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_a_text_of_one_endless_line_is_read_like_any_other(place, size_mb):
    long_line(place / "long.txt", size_mb * 10**6)
    # VmHWM is this program's own; ru_maxrss of a child starts at what its parent had.
    code = (
        "import sys\nfrom ondevice.cli.main import main\ncode = main(sys.argv[1:])\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]\n"
        "print(int(peak) // 1024, file=sys.stderr)\nsys.exit(code)\n"
    )
    words = ["data", "build", "--data", "long.txt", *BYTE, "--json"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=place)
    assert found.returncode == 0, found.stderr
    totals = json.loads(found.stdout)["totals"]
    assert totals["train_bytes"] + totals["val_bytes"] == size_mb * 10**6
    assert totals["train_bytes"] > 0.9 * size_mb * 10**6
    assert int(found.stderr.split()[-1]) < 400


def test_a_run_directory_of_a_newer_layout(own, call):
    path = own / "runs" / "tiny" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layout": 99}))
    before = tree(own)
    for words in (
        ["train", "tiny"],
        ["train", "tiny.toml"],
        ["status", "tiny"],
        ["generate", "tiny"],
        ["export", "tiny"],
    ):
        refused(call(*words), 4, ("tiny: run directory of layout 99", "knows layout 2", "update ondevice"))
    assert tree(own) == before


def test_a_recipe_edited_by_hand(own, call):
    path = own / "runs" / "tiny" / "recipe.json"
    raw = json.loads(path.read_text())
    raw["train"]["lr"] *= 2
    path.write_text(json.dumps(raw))
    before = tree(own)
    for words in (["train", "tiny"], ["generate", "tiny"], ["export", "tiny"]):
        refused(call(*words), 4, ("recipe.json", "changed by hand", "fork"))
    assert tree(own) - before <= {"runs/tiny/trainer.lock"}


def test_a_config_edited_by_hand_is_named(own, call):
    path = own / "runs" / "tiny" / "config.toml"
    path.write_text(path.read_text() + "\n[trian]\n")
    refused(call("train", "tiny.toml"), 2, ("config.toml", "'trian'", "did you mean 'train'"))


@pytest.mark.parametrize("damage", ["a flipped bit", "gone"])
def test_a_config_that_cannot_be_read_is_named_and_put_back(own, call, damage):
    path = own / "runs" / "tiny" / "config.toml"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:1] + bytes([whole[1] ^ 0x80]) + whole[2:])
    says = ("config.toml: ", "repair it with `ondevice doctor tiny`")
    for words in (["train", "tiny"], ["train", "tiny.toml"], ["train", "tiny", "--set", "limits.keep_last=5"]):
        refused(call(*words), 3, says)
    for words in (["limit", "tiny"], ["limit", "tiny", "keep_last=4"]):
        refused(call(*words), 3, says)
    assert call("doctor", "tiny").code == 0 and path.read_bytes() == whole
    assert call("train", "tiny").code == 0


def test_a_run_whose_limits_are_known_goes_on_without_its_config(own, call):
    path = own / "runs" / "tiny" / "config.toml"
    whole = path.read_bytes()
    assert call("limit", "tiny", "keep_last=4").code == 0
    path.unlink()
    done = call("train", "tiny")
    assert done.code == 0 and "config.toml" in done.out
    assert call("doctor", "tiny").code == 0 and path.read_bytes() == whole


def test_a_chunk_with_a_flipped_byte_is_refused_and_repaired(fresh, call):
    (chunk,) = (fresh.parents[1] / "datasets").rglob("*-train-*.chunk")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-999] + bytes([whole[-999] ^ 4]) + whole[-998:])
    refused(call("train", "tiny"), 3, (str(chunk), "damaged", "`ondevice data build`"))
    assert list((fresh / "checkpoints").iterdir()) == []
    assert call("data", "build", "tiny.toml").code == 0
    assert chunk.read_bytes() == whole
    assert call("train", "tiny").code == 0


def test_a_chunk_that_is_gone(fresh, call):
    (chunk,) = (fresh.parents[1] / "datasets").rglob("*-val-*.chunk")
    chunk.unlink()
    refused(call("train", "tiny"), 3, (str(chunk), "missing", "`ondevice data build`"))


def test_a_text_that_changed_since_the_run_began(fresh, place, call):
    """The run goes on with the tokens it began with, as long as they are there."""
    (place / "words.txt").write_text("other words altogether\n" * 200)
    assert call("data", "build", "tiny.toml").code == 0
    (kept,) = (fresh.parents[1] / "datasets").glob("*/dataset-*.json")
    manifest = kept.read_bytes()
    kept.unlink()
    refused(call("train", "tiny"), 3, ("the dataset changed since this run began", "--name", "put the old text back"))
    kept.write_bytes(manifest)
    assert call("train", "tiny").code == 0


def test_telemetry_of_a_newer_version(own, call):
    path = own / "runs" / "tiny" / "telemetry" / "0001.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2].replace('"v":1', '"v":7') + "".join(lines[3:]), "utf-8")
    for words in (["status", "tiny"], ["runs", "list"], ["sample", "tiny", "--last"]):
        refused(call(*words), 3, ("0001.jsonl:3: telemetry version 7", "reads 1", "update ondevice"))


def test_weights_that_changed(own, call):
    for path in (own / "runs" / "tiny" / "checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    refused(call("generate", "tiny"), 4, ("no checkpoint to use", "content changed"))
    refused(call("train", "tiny"), 4, ("no checkpoint is intact", "`ondevice runs rm tiny`"))


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8])
def test_a_full_disk_while_building(place, call, monkeypatch, after):
    """The ``after``-th durable write and all later ones fail."""
    writes, real = [], files.write_all

    def write_all(fd, data):
        writes.append(len(data))
        if len(writes) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", write_all)
        result = call("data", "build", "tiny.toml")
    if len(writes) <= after:
        assert result.code == 0
        return
    refused(result, 5, ("the disk is full; free some space and repeat the command.",))
    assert not list((place / "home").glob("datasets/*/dataset.json"))
    assert tree(place / "home") == set()
    assert call("data", "build", "tiny.toml").code == 0
    assert call("train", "tiny.toml", "--quiet").code == 0


def test_a_full_disk_while_making_the_run(place, call, monkeypatch):
    assert call("data", "build", "tiny.toml").code == 0
    real = files.write_all

    def write_all(fd, data):
        if "/runs/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, data)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", write_all)
        refused(call("train", "tiny.toml"), 5, ("the disk is full",))
    assert list((place / "home" / "runs").iterdir()) == []
    assert call("train", "tiny.toml", "--quiet").code == 0


def test_files_that_may_not_grow_while_building(place, call):
    """A real refusal of the kernel: files end at 64 KB."""
    (place / "long.txt").write_bytes(GOOD * 40)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    command = [sys.executable, "-m", "ondevice", "data", "build", "--data", "long.txt", *BYTE]
    command += ["--set", "data.deduplicate=false"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=place, preexec_fn=limit)
    assert found.returncode == 5, found.stderr
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1
    assert "ulimit -f" in found.stderr
    assert not list((place / "home").glob("datasets/*/dataset.json")) and tree(place / "home") == set()
    assert call(*command[3:]).code == 0
    assert not list((place / "home").rglob(".tmp-*"))


@pytest.fixture
def read_only(place):
    """A home that cannot be written: by its mode, or for root by being mounted so."""
    home = place / "home"
    home.mkdir()
    home.chmod(0o500)
    mounted = False
    if os.access(home, os.W_OK):
        command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(home)]
        try:
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            home.chmod(0o700)
            pytest.skip("root may write everywhere, and may not mount here")
    yield home
    if mounted:
        subprocess.run(["umount", str(home)], check=True)
    home.chmod(0o700)


@pytest.mark.parametrize("words", [("data", "build", "tiny.toml"), ("train", "tiny.toml"), ("quickstart", "words.txt")])
def test_a_home_that_cannot_be_written(read_only, call, words):
    refused(call(*words), 3, (str(read_only),))
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("words", [("data", "build", "tiny.toml"), ("train", "tiny.toml")])
def test_a_home_that_is_a_file(place, call, monkeypatch, words):
    monkeypatch.setenv("ONDEVICE_HOME", str(place / "words.txt"))
    refused(call(*words), 3, (str(place / "words.txt"),))
    assert call("status").code == 2


def test_an_unknown_dataset_or_run_offers_the_nearest(own, call):
    for words in (
        ["train", "tinny"],
        ["status", "tinny"],
        ["export", "tinny"],
        ["sample", "tinny"],
        ["pause", "tinny"],
    ):
        refused(call(*words), 2, ("tinny: no such run", "did you mean 'tiny'?"))
