"""Several processes that work on the batches of an export or a restore, each with a connection of its own.

This process alone reads and writes the file. With the others it speaks through pipes: a line of JSON, and as many bytes
after it as it says. Batches are given out in turn, so that answers are read in the order of what was asked. The first
line says how to connect and what to do; it may hold a password, and so belongs into a pipe, and not among arguments.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Self, cast

from embedcache.arguments import check_whole
from embedcache.child_processes import environment, told_error
from embedcache.errors import TransferError

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

MAX_PROCESSES: Final = 64

_PER_WORKER: Final = 2
"""Batches given to one at a time: the next one waits in its pipe while it works."""
_PIPE_BYTES: Final = 1024 * 1024
"""The most that Linux allows everybody. Its usual 64 KiB have the two sides wait for each other 80 times a batch."""
_WORKER: Final = "embedcache.transfer.worker"


class Message(NamedTuple):
    """What goes through a pipe: plain values, and bytes."""

    header: dict[str, Any]
    data: bytes = b""


def write_message(stream: BinaryIO, message: Message) -> None:
    """Sends one."""
    stream.write(json.dumps(message.header | {"bytes": len(message.data)}).encode() + b"\n")
    stream.write(message.data)
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """The next one, or None where there is no whole one any more."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header: dict[str, Any] = json.loads(line)
    data = stream.read(header["bytes"])
    return Message(header, data) if len(data) == header["bytes"] else None


def check_processes(processes: object) -> int:
    """The number of processes.

    Raises:
        InvalidInputError: It is none, or too large.
    """
    return check_whole("processes", processes, 1, MAX_PROCESSES)


class Workers:
    """The processes, from their start to their end. However that comes, they are ended: they keep nothing.

    Args:
        processes: How many.
        connection: Each connects as it does.
        job: What all of them do.

    Raises:
        InvalidInputError: Clients were passed in, which cannot be passed on.
    """

    def __init__(self, processes: int, connection: RedisConnection, job: dict[str, Any]) -> None:
        self._first = Message(job | {"connection": connection.recipe()})
        self._planned = processes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._planned):
                process = stack.enter_context(
                    subprocess.Popen(  # noqa: S603 - a module of ours, by this interpreter
                        [sys.executable, "-m", _WORKER],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        env=environment(OPENBLAS_NUM_THREADS="1"),
                        start_new_session=True,  # a Ctrl+C at the terminal is for the parent
                    )
                )
                _widen(process.stdin)
                _widen(process.stdout)
                stack.callback(self._end, process)
                self._processes.append(process)
                self._send(process, self._first)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def answers(self, requests: Iterable[Message]) -> Iterator[Message]:
        """What the processes answer, in the order of the requests; to each there may be several answers.

        Raises:
            EmbedcacheError: What one of them raised. Whatever they were given besides is done before it is.
            TransferError: One of them was ended by somebody else.
        """
        asked: deque[subprocess.Popen[bytes]] = deque()
        for number, request in enumerate(requests):
            process = self._processes[number % len(self._processes)]
            if len(asked) == _PER_WORKER * len(self._processes):
                yield from self._heard(asked)
            self._send(process, request)
            asked.append(process)
        while asked:
            yield from self._heard(asked)

    def _heard(self, asked: deque[subprocess.Popen[bytes]]) -> Iterator[Message]:
        """All answers to the request that was made first."""
        process = asked.popleft()
        while (answer := self._read(process)).header.get("more"):
            yield answer
        if "error" in answer.header:
            for other in asked:
                self._read_rest(other)
            raise _error(answer.header)

    def _read_rest(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(TransferError):  # one error is raised already
            while self._read(process).header.get("more"):
                continue

    def _read(self, process: subprocess.Popen[bytes]) -> Message:
        answer = read_message(cast("BinaryIO", process.stdout))
        if answer is None:
            raise _ended()
        return answer

    def _send(self, process: subprocess.Popen[bytes], message: Message) -> None:
        try:
            write_message(cast("BinaryIO", process.stdin), message)
        except BrokenPipeError as error:
            raise _ended() from error

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        with suppress(BrokenPipeError):  # of what it has not read
            cast("BinaryIO", process.stdin).close()


def _widen(pipe: IO[bytes] | None) -> None:
    """Gives a pipe more room, where the system has such pipes, and this user has not too many of them."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(cast("IO[bytes]", pipe), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _ended() -> TransferError:
    return TransferError("a process that worked on it was ended, for lack of memory perhaps; begin again")


def _error(header: dict[str, Any]) -> Exception:
    kind, message = header["error"], header["message"]
    if kind == TransferError.__name__:
        return TransferError(message, row=header["row"])
    return told_error(kind, message) or RuntimeError(f"{kind}: {message}")
