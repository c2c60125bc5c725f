"""Hashes of passwords, and what slows down whoever guesses them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pages.ui.passwords import (
    FORGIVEN_AFTER,
    FREE_IN_ALL,
    FREE_PER_SESSION,
    LONGEST_PAUSE,
    MalformedHashError,
    PasswordHash,
    Throttle,
    TooManyAttemptsError,
    hashed,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock)


def wrong() -> bool:
    return False


def right() -> bool:
    return True


def unasked() -> bool:
    pytest.fail("a password was looked at during a pause")


# ------------------------------------------------------------------------------------------------ hashes


@pytest.mark.parametrize("password", ["correct horse", "pässwörd ✓", "x" * 10_000, " ", "a:b"])
def test_a_password_matches_its_own_hash_alone(password: str) -> None:
    read = PasswordHash.parse(hashed(password))
    assert read.matches(password)
    assert not read.matches(password + " ")
    assert not read.matches("")


def test_what_a_browser_may_send_is_a_wrong_password_and_no_error() -> None:
    assert not PasswordHash.parse(hashed("p" * 8)).matches("\ud800")


def test_each_hash_has_a_salt_of_its_own() -> None:
    assert hashed("same") != hashed("same")


def test_a_hash_is_scrypt_as_others_compute_it() -> None:
    kind, n, r, p, salt, digest = hashed("correct horse").split(":")
    assert kind == "scrypt"
    raw_salt, raw_digest = (base64.urlsafe_b64decode(part + "==") for part in (salt, digest))
    # OWASP: N = 2^15, r = 8, p = 3, or N = 2^17, r = 8, p = 1 and so on; never under 16 MiB.
    assert 128 * int(n) * int(r) * int(p) >= 16 * 2**20
    assert len(raw_salt) >= 16
    again = hashlib.scrypt(
        b"correct horse", salt=raw_salt, n=int(n), r=int(r), p=int(p), maxmem=2**28, dklen=len(raw_digest)
    )
    assert again == raw_digest


def test_a_hash_needs_no_quoting_in_a_shell() -> None:
    assert all(character.isalnum() or character in ":_-" for character in hashed("p"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "correct horse",
        "scrypt",
        "scrypt:32768:8:1:AAAA:AAAA",
        "bcrypt:32768:8:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:x:8:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:32767:8:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:0:8:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:32768:0:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:1073741824:8:1:" + "A" * 22 + ":" + "A" * 43,
        "scrypt:32768:8:1:" + "A" * 22 + ":" + "A" * 20,
        "scrypt:32768:8:1:" + "é" * 22 + ":" + "A" * 43,
        "scrypt:32768:8:1:" + "A" * 22 + ":" + "A" * 43 + ":more",
    ],
)
def test_a_malformed_hash_is_an_error_that_does_not_quote_it(text: str) -> None:
    with pytest.raises(MalformedHashError) as raised:
        PasswordHash.parse(text)
    assert "horse" not in str(raised.value)
    assert "AAAA" not in str(raised.value)


def test_a_hash_may_have_white_space_around_it() -> None:
    assert PasswordHash.parse(f"  {hashed('correct horse')}\n").matches("correct horse")


# ------------------------------------------------------------------------------------------------ guessing


def test_a_session_pauses_after_five_wrong_ones(throttle: Throttle, clock: Clock) -> None:
    for _ in range(FREE_PER_SESSION):
        assert not throttle.admit("me", wrong)
    with pytest.raises(TooManyAttemptsError) as raised:
        throttle.admit("me", unasked)
    assert raised.value.seconds == 1
    clock.now += 1
    assert not throttle.admit("me", wrong)
    with pytest.raises(TooManyAttemptsError) as raised:
        throttle.admit("me", unasked)
    assert raised.value.seconds == 2


def test_a_pause_holds_for_the_right_password_too(throttle: Throttle, clock: Clock) -> None:
    for _ in range(FREE_PER_SESSION):
        throttle.admit("me", wrong)
    with pytest.raises(TooManyAttemptsError):
        throttle.admit("me", right)
    clock.now += 1
    assert throttle.admit("me", right)
    assert not throttle.admit("me", wrong)  # and all begins anew


def test_others_are_not_kept_out_by_one_session(throttle: Throttle) -> None:
    for _ in range(FREE_PER_SESSION):
        throttle.admit("me", wrong)
    assert throttle.admit("you", right)


def test_new_sessions_do_not_help(throttle: Throttle, clock: Clock) -> None:
    for number in range(FREE_IN_ALL):
        assert not throttle.admit(f"session {number}", wrong)
    with pytest.raises(TooManyAttemptsError):
        throttle.admit("another", unasked)
    guesses = 0
    until = clock.now + 3_600
    while clock.now < until:
        try:
            throttle.admit(f"later {guesses}", wrong)
            guesses += 1
        except TooManyAttemptsError as error:
            clock.now += error.seconds
    assert guesses <= 70  # one a minute


def test_a_pause_is_never_longer_than_a_minute(throttle: Throttle, clock: Clock) -> None:
    pauses: list[float] = []
    for _ in range(200):
        try:
            throttle.admit("me", wrong)
        except TooManyAttemptsError as error:
            pauses.append(error.seconds)
            clock.now += error.seconds
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == LONGEST_PAUSE


def test_what_was_wrong_long_ago_is_forgotten(throttle: Throttle, clock: Clock) -> None:
    for number in range(FREE_IN_ALL):
        throttle.admit(f"{number % 5}", wrong)
    clock.now += FORGIVEN_AFTER
    for _ in range(FREE_PER_SESSION):
        assert not throttle.admit("0", wrong)


def test_a_hundred_at_once_are_looked_at_one_by_one(throttle: Throttle) -> None:
    looked_at: list[int] = []

    def guess(number: int) -> bool:
        def check() -> bool:
            looked_at.append(number)
            return False

        try:
            return throttle.admit(f"session {number}", check)
        except TooManyAttemptsError:
            return False

    with ThreadPoolExecutor(32) as pool:
        assert not any(pool.map(guess, range(100)))
    assert len(looked_at) == FREE_IN_ALL


# ------------------------------------------------------------------------------------------------ by hand


def ask(*lines: str) -> tuple[int, str]:
    """Runs the command on a terminal of its own, types these lines, and gives its exit code and what it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from embedcache import launching; launching.hash_password()"]
    shown = b""
    with subprocess.Popen(
        command, cwd="/", stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        for prompt, line in zip((b"Password: ", b"Once more: "), lines, strict=False):
            while prompt not in shown:
                shown += os.read(ours, 1_024)
            os.write(ours, line.encode() + b"\n")
        output, _ = process.communicate(timeout=20)
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while more := os.read(ours, 4_096):
            shown += more
    os.close(ours)
    return process.returncode, (shown + output).decode()


def test_the_command_prints_a_hash_and_never_the_password() -> None:
    code, shown = ask("correct horse", "correct horse")
    assert code == 0
    assert "correct horse" not in shown
    assert PasswordHash.parse(shown.splitlines()[-1]).matches("correct horse")


@pytest.mark.parametrize(
    ("lines", "said"), [(("short",), "at least 8"), (("correct horse", "correct house"), "two different ones")]
)
def test_the_command_refuses(lines: tuple[str, ...], said: str) -> None:
    code, shown = ask(*lines)
    assert code == 1
    assert said in shown
    assert "scrypt" not in shown
