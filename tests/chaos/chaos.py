"""The chaos test: four processes embed through vectorizers while their server is killed, stopped, filled and restarted.

    PYTHONPATH=tests python tests/chaos/chaos.py [--seconds 300] [--seed 1]

The server is a real one with an append-only file that is synced every second. Prints figures; ends with 1 where a goal
was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from figures import Figures, Outcome
from servers import Server
from trouble import Trouble

HERE = Path(__file__).parent
PROCESSES = 4
END_SECONDS = 120
NOTICE_SECONDS = 10


def run(seconds: float, seed: int, settings: dict[str, Any], away: tuple[float, float], pause: float) -> Outcome:
    """One run.

    Args:
        seconds: How long trouble is made.
        seed: Of the troubles' order and times.
        settings: Of the caches' clients.
        away: Seconds that each trouble lasts, and that pass before the next one, from and to.
        pause: Seconds between two calls of one thread or task, on average.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ec-chaos-")))
        server = Server(
            "valkey9", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"
        )
        stack.callback(server.remove)
        ledgers = [folder / f"ledger-{number}" for number in range(PROCESSES)]
        workers = []
        for number, ledger in enumerate(ledgers):
            ledger.touch()
            told = {"url": server.url, "number": number, "ledger": str(ledger), "settings": settings, "pause": pause}
            workers.append(stack.enter_context(_worker(told)))
        for worker in workers:
            _read(worker, "ready")
        trouble = Trouble(server, ledgers, away, seed)
        stack.callback(trouble.close)
        started = time.monotonic()
        trouble.make(started + seconds)
        total = Figures()
        for worker in workers:
            worker.stdin.write("end\n")
            worker.stdin.flush()
        for worker in workers:
            total.add(Figures.load(_read(worker)))
        total.leaked += _still_open(server)  # the processes live, their caches are closed
        spent = time.monotonic() - started
    return Outcome(spent, PROCESSES, total, trouble.troubles)


def _still_open(server: Server) -> int:
    """Connections of the processes, once the server has had time to notice that they were closed."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while True:
        found = sum(str(client["name"]).startswith("chaos-") for client in server.raw.client_list())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@contextmanager
def _worker(told: dict[str, Any]) -> Iterator[Any]:
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, str(HERE / "strain.py"), json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield process
        process.stdin.close()
        process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _read(worker: Any, expected: str | None = None) -> str:
    """The next line that a process says; it is ended by `_worker` where there is none."""
    line = worker.stdout.readline().strip()
    if not line or (expected is not None and line != expected):
        raise RuntimeError(f"a process of the chaos test said {line!r}, and ended with {worker.poll()}")
    return str(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300, help="how long trouble is made (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the troubles' order and times (1)")
    options = parser.parse_args()
    outcome = run(options.seconds, options.seed, {}, (1, 9), 0.01)
    print(outcome.table())
    for failure in outcome.failures:
        print(f"MISSED: {failure}")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
