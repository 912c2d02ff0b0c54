"""llama.cpp as a peer of the benchmark of inference: node-llama-cpp's prebuilt library in a process of its own.

``LlamaCpp`` keeps several GGUF files loaded and decodes greedily with one of them whenever it is told to, so that peers
take turns. Seconds are those of the whole text, the prompt included, on the clock of that process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["LlamaCpp"]

_PROGRAM = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import readline from "node:readline";
const {files, threads, context} = JSON.parse(process.argv[2]);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: threads});
const sequences = {};
for (const [name, modelPath] of Object.entries(files)) {
    const model = await llama.loadModel({modelPath});
    sequences[name] = (await model.createContext({contextSize: context, threads})).getSequence();
}
console.log(JSON.stringify({release: llama.llamaCppRelease, threads: llama.maxThreads}));
for await (const line of readline.createInterface({input: process.stdin})) {
    const {name, prompt, tokens} = JSON.parse(line);
    await sequences[name].clearHistory();
    const ids = [], cpu = process.cpuUsage(), began = performance.now();
    for await (const token of sequences[name].evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        ids.push(token);
        if (ids.length >= tokens) break;
    }
    const wall_s = (performance.now() - began) / 1e3, used = process.cpuUsage(cpu);
    console.log(JSON.stringify({wall_s, cpu_s: (used.user + used.system) / 1e6, ids}));
}
process.exit(0);
"""


class LlamaCpp:
    """``modules`` is a folder with ``node_modules/node-llama-cpp``; ``files`` maps names to GGUF files.

    >>> peer = LlamaCpp(Path("npm"), {"q4_0": Path("model.gguf")}, threads=1, context=1024)
    >>> peer.decode("q4_0", [5, 9], 48)["wall_s"]; peer.stop()
    """

    def __init__(self, modules: Path, files: Mapping[str, Path], *, threads: int, context: int) -> None:
        """Raises RuntimeError where node or the package does not start."""
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("node is not installed; leave --llama-cpp out, or install Node.js 20")
        job = {"files": {name: str(path) for name, path in files.items()}, "threads": threads, "context": context}
        # Read from standard input the program would find no modules: they are looked for beside the file.
        place = modules.resolve() / "bench-peer.mjs"
        place.write_text(_PROGRAM, encoding="utf-8")
        self._process = subprocess.Popen(
            [node, str(place), json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()
        """``release`` of llama.cpp and the ``threads`` it may use."""

    def decode(self, name: str, prompt: Sequence[int], tokens: int) -> dict[str, Any]:
        """``wall_s``, ``cpu_s`` (of all threads) and the ``ids`` of one greedy text from an empty cache."""
        given = self._process.stdin
        assert given is not None
        given.write(json.dumps({"name": name, "prompt": list(prompt), "tokens": tokens}) + "\n")
        given.flush()
        return self._answer()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        said: IO[str] | None = self._process.stdout
        assert said is not None
        line = said.readline()
        if not line:
            raise RuntimeError("the process of llama.cpp ended; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer
