"""The process that warms one part of a corpus: started by `embedcache.warming.processes`, with which it speaks.

It reads one line of JSON, which says what to do, and answers with such lines: how far it is, and at last that it is
done, or the error. As soon as its input ends, it ends after the batch under way, which it stores: it was asked to, or
whoever started it is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

from embedcache.entry import NEVER
from embedcache.errors import EmbedcacheError
from embedcache.warming.corpora import Corpus
from embedcache.warming.progress import Counts
from embedcache.warming.settings import VectorizerSettings
from embedcache.warming.work import Part, TellCounts, Wants, warm_part

_TELL_SECONDS: Final = 0.1
_Line = dict[str, Any]


class _AskedToEndError(Exception):
    """Nobody waits for more."""


def _main() -> None:
    output = _private_output()
    job: _Line = json.loads(sys.stdin.buffer.readline())
    told, wanted = job["corpus"], job["wants"]
    corpus = Corpus(**told | {"path": Path(told["path"]), "metadata": tuple(told["metadata"])})
    wants = Wants(**wanted | {"ttl": NEVER if wanted["ttl"] == "never" else wanted["ttl"]})
    try:
        with VectorizerSettings.from_json(job["settings"]).opened() as vectorizer:
            counts = warm_part(corpus, Part(**job["part"]), vectorizer, wants, _telling(output))
        _write_line(output, {"counts": asdict(counts), "is_done": True})
        os._exit(0)  # cache and vectorizer are closed; taking torch down takes seconds
    except (_AskedToEndError, BrokenPipeError):
        os._exit(1)  # nobody reads what Python would write at a usual end
    except EmbedcacheError as error:
        _write_line(output, {"error": type(error).__name__, "message": str(error)})
    except Exception as error:
        _write_line(output, {"error": type(error).__name__, "message": str(error)})
        raise  # which shows, where errors go, from where in a function of the user's it came


def _private_output() -> BinaryIO:
    """The pipe to the parent. What models and their libraries print goes where errors go."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def _telling(output: BinaryIO) -> TellCounts:
    due = 0.0

    def tell(counts: Counts) -> None:
        nonlocal due
        if select.select([sys.stdin.fileno()], [], [], 0)[0]:
            raise _AskedToEndError
        if time.monotonic() >= due:
            _write_line(output, {"counts": asdict(counts), "is_done": False})
            due = time.monotonic() + _TELL_SECONDS

    return tell


def _write_line(output: BinaryIO, line: _Line) -> None:
    output.write(json.dumps(line).encode() + b"\n")
    output.flush()


if __name__ == "__main__":
    _main()
