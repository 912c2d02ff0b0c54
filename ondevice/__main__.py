"""``ondevice`` and ``python -m ondevice``: the way to the command line, where a Ctrl-C may come before it is there."""

import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command and gives its exit code. One that is interrupted while it is imported ends as any other."""
    try:
        from ondevice.cli.main import main as command

        return command()
    except KeyboardInterrupt:
        print("error: Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
