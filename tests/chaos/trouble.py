"""What is done to the server while others use it, and whether it remembers what it acknowledged."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from figures import Troubles
from servers import Server

from embedcache import EmbeddingsCache

SHARE_LEFT = 0.85
"""Memory that `evict` leaves."""
MODEL = "toy"
ALLOWED_LOSS_SECONDS = 1.0
"""What an append-only file that is synced every second may miss of what was acknowledged."""
ALLOWED_LOSS_ON_A_BUSY_DISK_SECONDS = 2.0
"""The same where a sync takes so long that the server puts off writing to the file: `aof_delayed_fsync` counts that
(https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/)."""


class Trouble:
    """Kills, stops, fills and restarts a server with an append-only file.

    Args:
        server: Whose ends are survived by what it wrote to its append-only file.
        ledgers: Files in which callers note what was acknowledged, and when.
        away: Seconds that each trouble lasts, from and to.
        seed: Of chance.
    """

    def __init__(self, server: Server, ledgers: list[Path], away: tuple[float, float], seed: int) -> None:
        self.troubles = Troubles()
        self._server = server
        self._ledgers = dict.fromkeys(ledgers, 0)
        self._away = away
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._space = EmbeddingsCache("chaos", redis_url=server.url, stats=False)
        self._acknowledged: list[tuple[float, str]] = []
        self._kinds: list[Callable[[], None]] = [self.kill, self.stop, self.fill, self.evict, self.restart]

    def make(self, until: float) -> None:
        """One trouble after the other, with some calm between them, until the monotonic clock says so."""
        while True:
            self._chance.shuffle(self._kinds)
            for kind in self._kinds:
                calm = self._chance.uniform(*self._away)
                if time.monotonic() + calm + self._away[1] > until:
                    return
                time.sleep(calm)
                kind()
                counts = self.troubles.counts
                counts[kind.__name__] = counts.get(kind.__name__, 0) + 1

    def close(self) -> None:
        self._space.close()

    def _wait(self) -> None:
        time.sleep(self._chance.uniform(*self._away))

    # ---------------------------------------------------------------------------------------- kinds

    def kill(self) -> None:
        """SIGKILL."""
        allowed = self._allowed_loss()
        ended = time.monotonic()
        self._server.kill()
        self._wait()
        self._server.stop()
        self._server.start()
        self._look_for_what_was_acknowledged_before(ended, allowed)

    def restart(self) -> None:
        """SIGTERM, upon which it saves."""
        ended = time.monotonic()
        self._server.stop()
        self._wait()
        self._server.start()
        self._look_for_what_was_acknowledged_before(ended, 0)

    def stop(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        os.kill(self._server.pid, signal.SIGSTOP)
        self._wait()
        os.kill(self._server.pid, signal.SIGCONT)

    def fill(self) -> None:
        """No memory left, and nothing is evicted."""
        self._server.raw.config_set("maxmemory", 1)
        self._wait()
        self._server.raw.config_set("maxmemory", 0)

    def evict(self) -> None:
        """Memory for some of the entries."""
        raw = self._server.raw
        raw.config_set("maxmemory-policy", "allkeys-lru")
        raw.config_set("maxmemory", int(raw.info("memory")["used_memory"] * SHARE_LEFT))
        self._wait()
        raw.config_set("maxmemory", 0)
        raw.config_set("maxmemory-policy", "noeviction")
        # Nobody can tell what was evicted from what was lost: only later writes are looked for.
        self._read_ledgers()
        now = time.monotonic()
        self._acknowledged = [each for each in self._acknowledged if each[0] > now]

    # ---------------------------------------------------------------------------------------- memory

    def _allowed_loss(self) -> float:
        said = self._server.raw.info("persistence")
        # Counted only once writing was put off for two seconds; until then a sync is under way.
        busy = said["aof_delayed_fsync"] or said["aof_pending_bio_fsync"]
        return ALLOWED_LOSS_ON_A_BUSY_DISK_SECONDS if busy else ALLOWED_LOSS_SECONDS

    def _look_for_what_was_acknowledged_before(self, ended: float, allowed: float) -> None:
        self._read_ledgers()
        before = [each for each in self._acknowledged if each[0] < ended]
        with self._server.raw.pipeline(transaction=False) as pipe:
            for _, text in before:
                pipe.exists(self._space.key_for(text, MODEL))
            found = pipe.execute()
        self.troubles.checked += len(before)
        lost = {text: ended - at for (at, text), exists in zip(before, found, strict=True) if not exists}
        self.troubles.lost += lost.values()
        self.troubles.lost_beyond += sum(age > allowed for age in lost.values())
        self._acknowledged = [each for each in self._acknowledged if each[1] not in lost]

    def _read_ledgers(self) -> None:
        for path, offset in self._ledgers.items():
            with path.open("rb") as file:
                file.seek(offset)
                written = file.read()
            whole = written[: written.rfind(b"\n") + 1]
            self._ledgers[path] = offset + len(whole)
            for line in whole.decode().splitlines():
                at, text = line.split("\t")
                self._acknowledged.append((float(at), text))
