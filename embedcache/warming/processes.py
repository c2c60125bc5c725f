"""Several processes that warm a corpus, each a part of it, with a model and connections of its own.

Between them and this one go only lines of JSON through pipes: what to do, and how far it is; no text and no vector.
They are started anew and not forked, for threads and devices of a loaded model do not outlive a fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any, BinaryIO, Final, TypeAlias, cast

from embedcache.child_processes import environment, told_error
from embedcache.entry import NEVER
from embedcache.errors import WarmingStoppedError
from embedcache.warming.corpora import BadRow, Corpus
from embedcache.warming.progress import Counts, Progress
from embedcache.warming.settings import VectorizerSettings
from embedcache.warming.work import Part, Wants

END_SECONDS: Final = 60.0
"""A process that is asked to end has so long for the batch under way."""

_WORKER: Final = "embedcache.warming.worker"

_Said: TypeAlias = dict[str, Any] | None


def warm_in_processes(
    corpus: Corpus, settings: VectorizerSettings, wants: Wants, processes: int, progress: Progress
) -> None:
    """Has so many processes warm a corpus, and ends them in order, whatever happens.

    Raises:
        WarmingStoppedError: One of them was ended by somebody else.
        EmbedcacheError: What one of them raised.
    """
    with _Workers(processes) as workers:
        for index in range(processes):
            workers.start(_job_line(corpus, settings, wants, Part(index, processes)))
        done = 0
        while done < processes:
            index, said = workers.hear()
            if said is None:
                raise WarmingStoppedError(
                    "a process that warms was ended, for lack of memory perhaps; what was stored stays: warm again"
                )
            if "error" in said:
                kind, message = said["error"], said["message"]
                raise told_error(kind, message) or WarmingStoppedError(f"{kind}: {message}")
            done += said["is_done"]
            progress.update(index, _counts(said["counts"]))


def _job_line(corpus: Corpus, settings: VectorizerSettings, wants: Wants, part: Part) -> bytes:
    """What a worker reads. It may hold a password, so that it belongs into a pipe, and not among arguments."""
    job = {
        "corpus": asdict(corpus) | {"path": str(corpus.path.absolute())},
        "settings": settings.to_json(),
        "wants": asdict(wants) | {"ttl": "never" if wants.ttl is NEVER else wants.ttl},
        "part": asdict(part),
    }
    return json.dumps(job).encode() + b"\n"


class _Workers:
    """The processes, from their start to their end."""

    def __init__(self, planned: int) -> None:
        self._environment = _environment(planned)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listeners: list[threading.Thread] = []
        self._heard: SimpleQueue[tuple[int, _Said]] = SimpleQueue()

    def start(self, job: bytes) -> None:
        """Starts one."""
        process = subprocess.Popen(  # noqa: S603 - a module of ours, by this interpreter
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # a Ctrl+C at the terminal is for the parent, which has them end in order
        )
        index = len(self._processes)
        self._processes.append(process)
        listener = threading.Thread(target=self._listen, args=(index, cast("BinaryIO", process.stdout)), daemon=True)
        self._listeners.append(listener)
        listener.start()
        with suppress(BrokenPipeError):  # it has ended already, and is heard to have
            _input(process).write(job)
            _input(process).flush()

    def hear(self) -> tuple[int, _Said]:
        """What one says next, and which one; None where it has ended without a last word."""
        return self._heard.get()

    def _listen(self, index: int, output: BinaryIO) -> None:
        is_done = False
        for line in output:
            try:
                said = json.loads(line)
            except ValueError:  # it was killed while it wrote, and a line that was cut off is no last word
                break
            is_done = said.get("is_done", True)
            self._heard.put((index, said))
        if not is_done:
            self._heard.put((index, None))

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            for process in self._processes:
                with suppress(BrokenPipeError):
                    _input(process).close()  # asks it to end
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
        finally:  # a second Ctrl+C does not wait
            for process in self._processes:
                process.kill()
                process.wait()
            for listener in self._listeners:
                listener.join()
            for process in self._processes:
                cast("BinaryIO", process.stdout).close()


def _input(process: subprocess.Popen[bytes]) -> BinaryIO:
    return cast("BinaryIO", process.stdin)


def _environment(processes: int) -> dict[str, str]:
    """Ours, with which a worker finds what we found; the processor's cores are shared out among them."""
    return environment(
        OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 1) // processes)),
        TQDM_DISABLE="1",  # several bars of models that are loaded, over each other in one terminal
    )


def _counts(told: dict[str, Any]) -> Counts:
    return Counts(**told | {"bad_rows": [BadRow(**bad) for bad in told["bad_rows"]]})
