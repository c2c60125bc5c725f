"""Passwords: hashing and checking them, and what slows down whoever guesses.

``embedcache dashboard --hash-password`` runs this module: it asks for one, without showing it, and prints its hash.

A hash reads ``scrypt:32768:8:1:<salt>:<digest>``: the parameters of scrypt (RFC 7914) N, r and p, then salt and digest
in URL-safe Base64 without padding. No character in it means anything to a shell or to a Compose file.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import hmac
import math
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_N, _R, _P = 2**15, 8, 1  # 32 MiB and about a tenth of a second, as OWASP's cheat sheet on password storage has it
_MAX_BYTES: Final = 256 * 1024 * 1024  # what a hash may make scrypt take
_SALT_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_MIN_LENGTH: Final = 8
_FIELDS: Final = 6

FREE_PER_SESSION: Final = 5
FREE_IN_ALL: Final = 20
LONGEST_PAUSE: Final = 60.0
FORGIVEN_AFTER: Final = 900.0


class MalformedHashError(ValueError):
    """A hash is not of the form that `hashed` makes. The message does not quote it."""


class TooManyAttemptsError(Exception):
    """Too many wrong passwords: this one was not even looked at.

    Attributes:
        seconds: How long until the next is.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {math.ceil(seconds)} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A hash and how it was made, read from text.

    Attributes:
        n: scrypt's cost, a power of two.
        r: Its block size.
        p: Its parallelism.
        salt: Its salt.
        digest: Its result, 32 bytes.
    """

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Reads what `hashed` wrote.

        Raises:
            MalformedHashError: It is something else.
        """
        fields = text.strip().split(":")
        if len(fields) != _FIELDS or fields[0] != "scrypt":
            raise MalformedHashError("it does not read scrypt:N:r:p:salt:digest")
        try:
            n, r, p = (int(field) for field in fields[1:4])
            read = cls(n, r, p, _decode(fields[4]), _decode(fields[5]))
        except (ValueError, binascii.Error):
            raise MalformedHashError("its numbers or its Base64 cannot be read") from None
        read._check()
        return read

    def _check(self) -> None:
        if self.n < 2 or self.n & (self.n - 1) or self.r < 1 or self.p < 1:  # noqa: PLR2004 - what scrypt takes
            raise MalformedHashError("its parameters are not scrypt's: N is a power of two, r and p are at least 1")
        if 128 * self.n * self.r * self.p > _MAX_BYTES:
            raise MalformedHashError("its parameters ask for more than 256 MiB")
        if len(self.salt) < _SALT_BYTES or len(self.digest) != _DIGEST_BYTES:
            raise MalformedHashError("its salt or its digest is cut short")

    def matches(self, password: str) -> bool:
        """Whether this is the password. How long it takes does not depend on how much of it is right."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.n, self.r, self.p), self.digest)


def hashed(password: str) -> str:
    """The hash of a password, with a salt of its own, as text."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, _N, _R, _P)
    return f"scrypt:{_N}:{_R}:{_P}:{_encode(salt)}:{_encode(digest)}"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    # Surrogates, which a browser may send, have no UTF-8: they are to be a wrong password and no error.
    typed = password.encode(errors="surrogatepass")
    return hashlib.scrypt(typed, salt=salt, n=n, r=r, p=p, maxmem=2 * _MAX_BYTES, dklen=_DIGEST_BYTES)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


# ------------------------------------------------------------------------------------------------ guessing


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = -math.inf


class Throttle:
    """Slows down guessing: after 5 wrong passwords of one session, or 20 of all together, a pause that doubles.

    All together, because a new session costs nothing. The pause is at most a minute, for a guesser keeps everybody out
    for as long; who is logged in already is not asked. A quarter of an hour without a wrong password forgets them.

    Args:
        clock: Tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all = _Failures()
        self._sessions: dict[str, _Failures] = {}

    def admit(self, session: str, check: Callable[[], bool]) -> bool:
        """Whether a password is right, by `check`, which is not called during a pause.

        One at a time, so that a hundred at once are not all looked at before the first is found to be wrong.

        Raises:
            TooManyAttemptsError: There is a pause.
        """
        with self._lock:
            now = self._clock()
            self._forgive(now)
            mine = self._sessions.get(session, _Failures())
            pause = max(_pause(mine, FREE_PER_SESSION, now), _pause(self._all, FREE_IN_ALL, now))
            if pause > 0:
                raise TooManyAttemptsError(pause)
            if check():
                self._sessions.pop(session, None)
                return True
            now = self._clock()
            for failures in (self._all, self._sessions.setdefault(session, mine)):
                failures.count, failures.last = failures.count + 1, now
            return False

    def _forgive(self, now: float) -> None:
        self._sessions = {
            name: failures for name, failures in self._sessions.items() if now - failures.last < FORGIVEN_AFTER
        }
        if now - self._all.last >= FORGIVEN_AFTER:
            self._all = _Failures()


def _pause(failures: _Failures, free: int, now: float) -> float:
    if failures.count < free:
        return 0.0
    length = min(2.0 ** min(failures.count - free, 30), LONGEST_PAUSE)
    return failures.last + length - now


# ------------------------------------------------------------------------------------------------ by hand


def main() -> int:
    """Asks for a password twice and prints its hash."""
    password = getpass.getpass("Password: ")
    if len(password) < _MIN_LENGTH:
        sys.stderr.write(f"This is too short. Take at least {_MIN_LENGTH} characters.\n")
        return 1
    if getpass.getpass("Once more: ") != password:
        sys.stderr.write("These were two different ones. Try again.\n")
        return 1
    sys.stdout.write(hashed(password) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
