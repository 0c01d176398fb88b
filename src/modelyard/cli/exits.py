"""From the error tree to exit codes and one line: the command line's edge.

Hides how a failure is told. The table is total over the tree (`tests/unit/cli/test_exits.py`): a class without an entry takes its
nearest base's, and the base of all has one.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from modelyard.errors import (
    Conflict,
    DeadlineExceeded,
    Denied,
    InvalidInput,
    ModelFailed,
    ModelyardError,
    NotFound,
    Overloaded,
    Rejected,
    StorageFull,
    Tampered,
    Unavailable,
    Unconvertible,
)

EXIT_CODES: dict[type[ModelyardError], int] = {
    ModelyardError: 1,
    InvalidInput: 2,
    NotFound: 3,
    Conflict: 4,
    Denied: 5,
    Tampered: 6,
    Rejected: 7,
    Unavailable: 8,
    DeadlineExceeded: 8,
    Overloaded: 8,
    ModelFailed: 9,
    Unconvertible: 10,
    StorageFull: 11,
}
INTERRUPTED = 130


def exit_code(error: ModelyardError) -> int:
    """The exit code for `error`: its class's, or its nearest base's."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """`function` whose failures become one line on stderr (and, with `json`, the same as JSON on stdout) and an exit code."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except ModelyardError as error:
            _tell(error, as_json=bool(options.get("json")))
            sys.exit(exit_code(error))
        except KeyboardInterrupt:
            print("modelyard: interrupted; nothing half-written was left", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:  # `| head`: the reader has gone; keep the interpreter's own flush from complaining
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = StorageFull("no space left on the disk; nothing half-written was left. Free some space and try again")
            _tell(full, as_json=bool(options.get("json")))
            sys.exit(exit_code(full))

    call.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]  # typer reads annotations from here
    call.__annotations__ = inspect.get_annotations(function, eval_str=True)
    return call


def _tell(error: ModelyardError, *, as_json: bool) -> None:
    print(f"modelyard: {error.message}", file=sys.stderr)
    verdicts = error.verdicts if isinstance(error, Rejected) else ()
    for verdict in verdicts:
        if verdict.outcome != "pass":
            print(f"  {verdict.outcome}  {verdict.rule}: {verdict.evidence}", file=sys.stderr)
    if as_json:
        body = {"code": error.code, "message": error.message, "field": error.field, "rule": error.rule, "verdicts": verdicts}
        print(msgspec.json.encode({"error": body}).decode())
