"""A process that works on batches of an export or a restore: started by `embedcache.transfer.processes`.

Its first message says how to connect and what to do, each one after that is a batch; to each it answers with as many
messages as it likes and a last one, or with the error. It ends when its input does, or when nobody reads its answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, BinaryIO, Final, TypeAlias

from embedcache.connection import RedisConnection
from embedcache.errors import EmbedcacheError, TransferError
from embedcache.transfer.batches import Reader
from embedcache.transfer.footer import footer_from_json
from embedcache.transfer.formats import format_named
from embedcache.transfer.processes import Message, read_message, write_message
from embedcache.transfer.restoring import Restoring

_Work: TypeAlias = Callable[[Message], Iterator[Message]]


def _exporting(connection: RedisConnection, job: dict[str, Any]) -> _Work:
    """From the digests of keys to pieces of the file."""
    reader, chosen = Reader(connection, job["cache"]), format_named(**job["form"])

    def work(request: Message) -> Iterator[Message]:
        for batch in reader.batches_of(request.data):
            yield Message(batch.counts.to_json(), chosen.to_piece(batch.columns))

    return work


def _restoring(connection: RedisConnection, job: dict[str, Any]) -> _Work:
    """From pieces of the file to entries on the server."""
    restoring = Restoring(job["cache"], job["layout"], job["on_conflict"], footer_from_json(job["footer"].encode()))
    chosen = format_named(**job["form"])

    def work(request: Message) -> Iterator[Message]:
        row = request.header["row"]
        packed = restoring.pack(chosen.from_piece(request.data, row), row)
        late, written = restoring.write(connection, packed)
        yield Message({"rows": len(packed.keys), "late": late, "written": written})

    return work


_WORKS: Final = {"export": _exporting, "restore": _restoring}


def _answer(work: _Work, request: Message, output: BinaryIO) -> None:
    try:
        for answer in work(request):
            write_message(output, Message(answer.header | {"more": True}, answer.data))
        write_message(output, Message({}))
    except TransferError as error:
        write_message(output, Message({"error": TransferError.__name__, "message": error.reason, "row": error.row}))
    except EmbedcacheError as error:
        write_message(output, Message({"error": type(error).__name__, "message": str(error)}))


def _main() -> None:
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing that is printed gets among the answers
    if (first := read_message(sys.stdin.buffer)) is None:
        return
    job = first.header
    try:
        with closing(RedisConnection(**job["connection"])) as connection:
            work = _WORKS[job["work"]](connection, job)
            while (request := read_message(sys.stdin.buffer)) is not None:
                _answer(work, request, output)
    except BrokenPipeError:
        os._exit(1)  # nobody waits for it any more; at a usual end Python would try to write once more


if __name__ == "__main__":
    _main()
