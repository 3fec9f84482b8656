"""The command line: options in, files and one-line errors out."""

from __future__ import annotations

import logging
import os
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_DEBUG = "--debug"


def main() -> None:
    """Run ``wsigen``; whatever is wrong with the input becomes one line on stderr and exit code 2.

    With ``--log json`` every line on stderr is an object, whoever wrote it. With ``--debug``, anywhere on the command line,
    an error ends in its traceback, that of the library included whose words the line quotes.
    """
    from wsigen.cli.log import JsonLines, asks_for_json, tell

    if debugs := _DEBUG in sys.argv[1:]:
        sys.argv = [word for word in sys.argv if word != _DEBUG]

    if asks_for_json(sys.argv[1:]):
        sys.stderr = JsonLines(sys.stderr)
    import typer

    from wsigen.base.errors import WsigenError
    from wsigen.base.machine import demand_posix
    from wsigen.cli.app import app

    for name in ("tifffile", "asyncio"):  # what is wrong becomes one line of ours; asyncio: what dask's servers leave unread
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usage_error = typer.BadParameter.__mro__[1]  # of all its errors typer names this one alone
    try:
        demand_posix()
        code = app(standalone_mode=False)
    except WsigenError as error:
        _trace(debugs)
        tell(f"wsigen: error: {error}", error=type(error).__name__, message=str(error))
        sys.exit(2)
    except OSError as error:
        _trace(debugs)
        kept = {"generate", "resume"} & set(sys.argv[1:2])
        advice = "; what is finished is kept: mend the cause and go on with 'wsigen resume'" if kept else ""
        tell(f"wsigen: error: {error}{advice}", error=type(error).__name__, message=f"{error}{advice}")
        sys.exit(2)
    except KeyboardInterrupt:
        _leave_at_once()
    except Exception as error:
        if not isinstance(error, usage_error):
            raise
        if message := _usage(error):
            tell(f"wsigen: error: {message}", error="UsageError", message=message)
        sys.exit(2)
    if code == INTERRUPTED:  # typer's word for it
        _leave_at_once()
    sys.exit(code)


def _trace(wanted: bool) -> None:
    """Print the traceback of the error that is being handled."""
    if wanted:
        import traceback

        traceback.print_exc()


def _usage(error: Exception) -> str:
    """What is wrong with a command line, and where to look; nothing if it was bare and help was printed instead."""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}; see '{context.command_path if context else 'wsigen'} --help'" if message else ""


def _leave_at_once() -> None:
    """End without waiting for tasks that still run in threads: files are whole or not there, so nothing is lost."""
    from wsigen.cli.log import tell

    tell("wsigen: interrupted", error="KeyboardInterrupt", message="interrupted")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
