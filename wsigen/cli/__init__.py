"""The command line: options in, files and one-line errors out."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Run ``wsigen``; a ``WsigenError`` becomes one line on stderr and exit code 2.

    With ``--log json`` every line on stderr is an object, whoever wrote it.
    """
    from wsigen.cli.lines import JsonLines, asks_for_json, tell

    if asks_for_json(sys.argv[1:]):
        sys.stderr = JsonLines(sys.stderr)
    from wsigen.base.errors import WsigenError
    from wsigen.cli.app import app

    try:
        app()
    except WsigenError as error:
        tell(f"wsigen: error: {error}", error=type(error).__name__, message=str(error))
        sys.exit(2)
    except OSError as error:
        kept = {"generate", "resume"} & set(sys.argv[1:2])
        advice = "; what is finished is kept: mend the cause and go on with 'wsigen resume'" if kept else ""
        tell(f"wsigen: error: {error}{advice}", error=type(error).__name__, message=f"{error}{advice}")
        sys.exit(2)
    except KeyboardInterrupt:
        _leave_at_once()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's word for it
            _leave_at_once()
        raise


def _leave_at_once() -> None:
    """End without waiting for tasks that still run in threads: files are whole or not there, so nothing is lost."""
    from wsigen.cli.lines import tell

    tell("wsigen: interrupted", error="KeyboardInterrupt", message="interrupted")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
