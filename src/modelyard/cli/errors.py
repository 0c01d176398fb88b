"""From the error tree to exit codes and one line: the command line's edge.

Hides how a failure is told. The table is total over the tree (`tests/house/test_error_tables.py`).
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

from modelyard import config, errors
from modelyard.cli.show import tame
from modelyard.errors import ModelyardError, Rejected, StorageFull

EXIT: dict[type[ModelyardError], int] = {
    errors.ModelyardError: 1,
    errors.InvalidInput: 2,
    errors.SchemaMismatch: 2,
    errors.MalformedPayload: 2,
    errors.PayloadTooLarge: 2,
    errors.UnsupportedMedia: 2,
    errors.InvalidConfig: 2,
    errors.Misconfigured: 2,
    errors.NotFound: 3,
    errors.Conflict: 4,
    errors.Denied: 5,
    errors.Unauthenticated: 5,
    errors.Forbidden: 5,
    errors.Tampered: 6,
    errors.DigestMismatch: 6,
    errors.SealInvalid: 6,
    errors.UntrustedSigner: 6,
    errors.UnsupportedFormat: 6,
    errors.Rejected: 7,
    errors.Unavailable: 8,
    errors.DeadlineExceeded: 8,
    errors.Overloaded: 8,
    errors.ModelFailed: 9,
    errors.Unconvertible: 10,
    errors.StorageFull: 11,
}
"""Exit codes: 0 is success, 130 an interrupt."""
INTERRUPTED = 130


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """`function` whose failures become one line on stderr (and, with `json`, the same as JSON on stdout) and an exit code."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except ModelyardError as error:
            _tell(error, as_json=bool(options.get("json")))
            sys.exit(EXIT[type(error)])
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
            sys.exit(EXIT[type(full)])

    call.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]  # typer reads annotations from here
    call.__annotations__ = inspect.get_annotations(function, eval_str=True)
    return call


def _tell(error: ModelyardError, *, as_json: bool) -> None:
    shown = " (shown was what MODELYARD_KEY holds)" if isinstance(error, errors.Denied) and config.key() is not None else ""
    print(tame(f"modelyard: {error.message}{shown}"), file=sys.stderr)
    verdicts = error.verdicts if isinstance(error, Rejected) else ()
    for verdict in verdicts:
        if verdict.outcome != "pass":
            print(tame(f"  {verdict.outcome}  {verdict.rule}: {verdict.evidence}"), file=sys.stderr)
    if as_json:
        body = {"code": error.code, "message": error.message, "field": error.field, "rule": error.rule, "verdicts": verdicts}
        print(msgspec.json.encode({"error": body}).decode())
