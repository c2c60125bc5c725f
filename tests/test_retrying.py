"""When a model's server is asked again."""

from __future__ import annotations

import pytest

from embedcache.vectorizers.retrying import FIRST_PAUSE, LONGEST_PAUSE, Failure, pause, retry_after


def failure(status: int | None = 429, code: str = "", **headers: str) -> Failure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Failure(status, code, "", "", named, ValueError())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 999999 00:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
    ],
    ids=str,
)
def test_what_the_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=10.0) == seconds


def test_pauses_grow_to_a_bound_and_vary() -> None:
    for retries, longest in ((0, FIRST_PAUSE), (1, 1.0), (2, 2.0), (4, LONGEST_PAUSE), (10_000, LONGEST_PAUSE)):
        pauses = [pause(failure(), retries, 60.0) or 0.0 for _ in range(50)]
        assert 0.75 * longest <= min(pauses) < max(pauses) <= longest


def test_a_pause_is_the_servers_where_it_asks_for_one() -> None:
    assert pause(failure(retry_after="20"), 3, 20.0) == 20.0
    assert pause(failure(retry_after="20"), 3, 19.9) is None
    assert pause(failure(), 0, 0.1) is None


@pytest.mark.parametrize("status", [None, 408, 409, 429, 500, 503, 599])
def test_what_may_pass_is_tried_again(status: int | None) -> None:
    assert pause(failure(status), 0, 60.0) is not None
    assert pause(failure(status, x_should_retry="false"), 0, 60.0) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_stays_is_not(status: int) -> None:
    assert pause(failure(status), 0, 60.0) is None
    assert pause(failure(status, x_should_retry="true"), 0, 60.0) is not None


def test_an_account_out_of_credit_is_not_asked_again() -> None:
    assert pause(failure(429, "insufficient_quota", x_should_retry="true"), 0, 60.0) is None
