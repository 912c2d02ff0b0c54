"""``ondevice serve TARGET``: a model behind OpenAI's completions and chat API, for any client on this machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.common import add_step_flag, add_threads_flag, at_least, print_json_line
from ondevice.cli.folding import tell
from ondevice.errors import DataError, UsageError

if TYPE_CHECKING:
    from ondevice.infer.engine import Engine
    from ondevice.infer.server import ModelServer

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice serve notes                               http://127.0.0.1:8000/v1, for this machine only
  ondevice serve notes/exports/onnx-int4-00000800 --threads 2
  ONDEVICE_API_KEY=... ondevice serve notes --host 0.0.0.0 --limit max_battery_c=38

  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
       -d '{"model": "notes", "prompt": "Dear diary,", "max_tokens": 64}'

One text is written at a time; the others wait. What a request leaves out is as `ondevice sweep` recommends."""

_KEY_NAME = "ONDEVICE_API_KEY"
_LONGEST_KEY = 4096
_LENGTH = 128  # tokens of a completion that says nothing of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a run, the folder of a checkpoint, or an export folder")
    add_step_flag(parser)
    add_threads_flag(parser)
    parser.add_argument("--name", help="what clients call the model (its run's or folder's name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=at_least(0), default=8000, help="port to listen on; 0 takes a free one (8000)")
    parser.add_argument("--api-key-file", metavar="FILE", help=f"file with the key clients must show (or {_KEY_NAME})")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a web page whose scripts may ask (repeatable)",
    )
    parser.add_argument("--preset", metavar="NAME", help="balanced, creative, precise, greedy or default")
    parser.add_argument("--queue", type=at_least(0), default=16, metavar="N", help="requests that may wait (16)")
    parser.add_argument("--requests-per-minute", type=at_least(1), default=600, metavar="N", help="of one client (600)")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a limit of the device, as in `ondevice limit`",
    )
    parser.add_argument("--quiet", action="store_true", help="no line for each request")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line: the address, then nothing")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.server import Bounds, ModelServer

    key = _key(args.api_key_file)
    with ModelServer(
        host=args.host,
        port=int(args.port),
        key=key,
        origins=tuple(args.allow_origin),
        bounds=Bounds(per_minute=int(args.requests_per_minute)),
        tell=(lambda text: None) if args.quiet or args.json else _tell,
    ) as server:
        server.engine, what = _engine(args)
        name = server.engine.name
        if args.json:
            print_json_line({"url": server.url, "model": name, "what": what, "key": bool(key)})
        else:
            tell(f"{server.url} serves {name} [{what}]; Ctrl-C ends it.")
        _serve(server)
    return 0


def _serve(server: ModelServer) -> None:
    """Until Ctrl-C or SIGTERM; texts that are being written end where they are."""
    thread = threading.Thread(target=server.serve_forever, name="server", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.5)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough
    finally:
        server.stop()


def _engine(args: argparse.Namespace) -> tuple[Engine, str]:
    from ondevice.cli.limit import device_limits
    from ondevice.infer.chat import chat_of
    from ondevice.infer.engine import Engine
    from ondevice.infer.manners import on_this_machine
    from ondevice.infer.open import open_target
    from ondevice.infer.prefix import PrefixBackend
    from ondevice.infer.presets import choose_settings

    manners = on_this_machine(device_limits(args.limit), Path.cwd())
    opened = open_target(args.target, step=args.step, threads=args.threads)
    chosen = choose_settings(opened.settings, preset_name=args.preset, given={})
    engine = Engine(
        PrefixBackend(opened.backend),
        opened.tokenizer,
        name=args.name or Path(os.path.abspath(os.path.expanduser(args.target))).name,
        chat=chat_of(opened.tokenizer),
        defaults=chosen.sampling,
        manners=manners,
        length=_LENGTH if chosen.length is None else chosen.length,
        most_waiting=int(args.queue),
    )
    return engine, opened.what


def _key(file: str | None) -> str:
    """The key of the file or the environment, "" where there is none. Raises DataError, UsageError."""
    key, where = os.environ.get(_KEY_NAME, ""), _KEY_NAME
    if file is not None:
        where = file
        try:
            with open(os.path.expanduser(file), encoding="utf-8") as text:
                key = text.read(_LONGEST_KEY + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise DataError(f"{file}: cannot be read as a key ({reason}); write the key in it as one line.") from error
    key = key.strip()
    if (file is not None and not key) or len(key) > _LONGEST_KEY or not key.isprintable() or " " in key:
        raise UsageError(f"{where}: a key is one line of 1 to {_LONGEST_KEY} characters without spaces.")
    return key


def _tell(text: str) -> None:
    tell(text, sys.stderr)
