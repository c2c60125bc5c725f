"""Walks over a large server's keys in a process of their own, so that this one goes on answering people.

A walk of seconds is in good part Python's own work. In a thread it has every other thread wait for the interpreter, and
not all the memory that it needs is given back; a process of low priority does neither. It takes a third of a second to
start, so that few keys are walked over in the caller's thread. A walk also keeps the server busy, against which no
priority helps where it shares the machine: so it stands still for a moment whenever somebody opens a page (`give_way`).

The two speak through pipes. The parent writes a line of JSON that names the server and the walk; the child answers with
such lines about how far it is, and at last with one that holds the result or the error. An index's columns follow that
line as they lie in memory. A byte from the parent asks the child to rest. The child ends when it has answered, when it
is killed, or when nobody reads what it tells.
"""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, BinaryIO, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from embedcache import walking
from embedcache.child_processes import environment, told_error
from embedcache.connection import RedisConnection
from embedcache.errors import EmbedcacheError, ServerReplyError
from embedcache.index import COLUMNS, EntryIndex
from embedcache.operations import Operation
from embedcache.walking import KeyCounts, Tell

MANY_TO_INDEX: Final = 50_000
MANY_TO_COUNT: Final = 300_000
"""From so many keys on a server, a walk is done apart: half a second's work."""

_HEAD_START_SECONDS: Final = 2.0
"""Waited before a walk begins. The browser that asked draws its page meanwhile, with all of the processor."""
_REST_SECONDS: Final = 2.0
"""As long a walk rests for a page that is opened, and as long it goes on at least before it rests again."""
_TELL_SECONDS: Final = 0.05
_NICENESS: Final = 19  # it has what nobody else wants of the processor: browsers and pages are drawn on it, too
_Line: TypeAlias = dict[str, Any]
_Walker: TypeAlias = "subprocess.Popen[bytes]"

_walkers: Final[set[_Walker]] = set()
_walkers_lock: Final = threading.Lock()


class WalkEndedError(EmbedcacheError):
    """The process that walked over the keys ended before it was done."""


def index_cache(connection: RedisConnection, url: str, name: str, tell: Tell) -> EntryIndex:
    """As `embedcache.walking.index_cache`; `url` is the connection's, password and all.

    Raises:
        WalkEndedError: The process that did it was ended by somebody else.
    """
    if not _has_keys(connection, MANY_TO_INDEX):
        return walking.index_cache(connection, name, tell)
    with _walking(url, "index_cache", name, tell) as (described, output):
        told: dict[str, Any] = {column: _read_array(output, *form) for column, form in described["columns"].items()}
        models = tuple(described["models"])
        return EntryIndex(name=described["name"], taken_at=described["taken_at"], models=models, **told)


def count_keys(connection: RedisConnection, url: str, tell: Tell) -> KeyCounts:
    """As `embedcache.walking.count_keys`; `url` is the connection's, password and all.

    Raises:
        WalkEndedError: The process that did it was ended by somebody else.
    """
    if not _has_keys(connection, MANY_TO_COUNT):
        return walking.count_keys(connection, tell)
    with _walking(url, "count_keys", "", tell) as (described, _):
        return KeyCounts(**described)


def give_way() -> None:
    """Has this process's walks rest while a page is drawn. However often it is called, they go on half of the time."""
    with _walkers_lock:
        for walker in _walkers:
            _tell_child(walker, b"\n")


def _has_keys(connection: RedisConnection, many: int) -> bool:
    return connection.drive(_has(many))


def _has(many: int) -> Operation[bool]:
    (size,) = yield [("DBSIZE",)]
    return not isinstance(size, ServerReplyError) and int(size) >= many


# ------------------------------------------------------------------------------------------------ the parent


@contextmanager
def _walking(url: str, walk: str, name: str, tell: Tell) -> Iterator[tuple[_Line, BinaryIO]]:
    """Has a process walk, and gives what it says of its result, and where that goes on; ends the process."""
    _wait_a_moment(tell)
    with subprocess.Popen(  # noqa: S603 - this module, by this interpreter
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,  # unlike in arguments and environment, nobody else can read a password there
        stdout=subprocess.PIPE,
        env=environment(OPENBLAS_NUM_THREADS="1"),  # one thread is enough for sums
        start_new_session=True,  # a Ctrl+C at the terminal is for the parent
    ) as process:
        told = cast("BinaryIO", process.stdout)
        try:
            _tell_child(process, json.dumps({"url": url, "walk": walk, "name": name}).encode() + b"\n")
            os.set_blocking(cast("BinaryIO", process.stdin).fileno(), False)  # who opens a page waits for no walk
            with _walkers_lock:
                _walkers.add(process)
            yield _wait_for_result(told, tell), told
        finally:
            with _walkers_lock:
                _walkers.discard(process)
            process.kill()  # it has nothing to clean up


def _wait_a_moment(tell: Tell) -> None:
    until = time.monotonic() + _HEAD_START_SECONDS
    while time.monotonic() < until:
        tell(0, None)
        time.sleep(_TELL_SECONDS)


def _tell_child(process: _Walker, words: bytes) -> None:
    # It has ended, and whoever waits for its result is told so; or it has been asked to rest often enough.
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(cast("BinaryIO", process.stdin).fileno(), words)


def _wait_for_result(told: BinaryIO, tell: Tell) -> _Line:
    for line in told:
        said: _Line = json.loads(line)
        if "error" in said:
            kind, message = said["error"], said["message"]
            raise told_error(kind, message) or RuntimeError(f"{kind}: {message}")
        if "result" in said:
            return cast("_Line", said["result"])
        tell(said["done"], said["total"])
    raise WalkEndedError("the process that looks at the keys was ended, by lack of memory perhaps: look again")


def _read_array(told: BinaryIO, dtype: str, shape: list[int]) -> npt.NDArray[Any]:
    array = np.empty(shape, dtype)
    if array.size and cast("io.BufferedReader", told).readinto(array.data.cast("B")) != array.nbytes:
        raise WalkEndedError("the process that looks at the keys was ended before it had told all: look again")
    return array


# ------------------------------------------------------------------------------------------------ the child


def _write_line(stream: BinaryIO, line: _Line) -> None:
    stream.write(json.dumps(line).encode() + b"\n")
    stream.flush()


def _telling(output: BinaryIO) -> Tell:
    """Tells the parent, a few times a second at most, and of the end."""
    due = 0.0
    rest_until = _rests()

    def tell(done: int, total: int | None) -> None:
        nonlocal due
        if done == total or time.monotonic() >= due:
            due = time.monotonic() + _TELL_SECONDS
            _write_line(output, {"done": done, "total": total})
        until = rest_until()
        while time.monotonic() < until:
            time.sleep(_TELL_SECONDS)
            _write_line(output, {"done": done, "total": total})  # whoever is told can still end it

    return tell


def _rests() -> Callable[[], float]:
    """Until when to rest, as `time.monotonic` counts, if the parent has asked for it since, and not too soon again."""
    asked = sys.stdin.fileno()
    again = 0.0

    def rest_until() -> float:
        nonlocal again
        if not select.select([asked], [], [], 0)[0]:
            return 0.0
        if not os.read(asked, io.DEFAULT_BUFFER_SIZE):
            os._exit(1)  # the parent is gone
        if (now := time.monotonic()) < again:
            return 0.0
        again = now + 2 * _REST_SECONDS
        return now + _REST_SECONDS

    return rest_until


def _tell_index(connection: RedisConnection, name: str, output: BinaryIO) -> None:
    index = walking.index_cache(connection, name, _telling(output))
    columns = {column: getattr(index, column) for column in COLUMNS}
    described = {column: (array.dtype.str, array.shape) for column, array in columns.items()}
    result = {"name": index.name, "taken_at": index.taken_at, "models": index.models, "columns": described}
    _write_line(output, {"result": result})
    output.writelines(np.ascontiguousarray(array).data.cast("B") for array in columns.values() if array.size)
    output.flush()


def _tell_counts(connection: RedisConnection, name: str, output: BinaryIO) -> None:  # noqa: ARG001 - as the other
    counts = walking.count_keys(connection, _telling(output))
    _write_line(output, {"result": {"by_cache": counts.by_cache, "others": counts.others}})


_WALKS: Final[dict[str, Callable[[RedisConnection, str, BinaryIO], None]]] = {
    "index_cache": _tell_index,
    "count_keys": _tell_counts,
}


def _main() -> None:
    os.nice(_NICENESS)
    output = sys.stdout.buffer
    asked: _Line = json.loads(sys.stdin.buffer.readline())
    try:
        with closing(RedisConnection(asked["url"], read_only=True)) as connection:
            _WALKS[asked["walk"]](connection, asked["name"], cast("BinaryIO", output))
    except BrokenPipeError:
        os._exit(1)  # nobody waits for it any more; at a usual end Python would try to write once more
    except EmbedcacheError as error:
        _write_line(cast("BinaryIO", output), {"error": type(error).__name__, "message": str(error)})


if __name__ == "__main__":
    _main()
