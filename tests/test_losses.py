"""One warning per outage, whatever else is on its way."""

from __future__ import annotations

import logging

import pytest

from embedcache.vectorizers.losses import Loss


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "embedcache.vectorizers.losses")
    return caplog


def test_an_answer_to_what_was_asked_before_the_failure_ends_nothing(told: pytest.LogCaptureFixture) -> None:
    loss = Loss("without", "back")
    older = loss.last_failure
    loss.failed(ValueError("why"))
    loss.answered(older)
    between = loss.last_failure
    loss.failed(ValueError("why"))
    loss.answered(between)
    assert told.messages == ["without: why"]
    loss.answered(loss.last_failure)
    loss.answered(loss.last_failure)
    assert told.messages == ["without: why", "back"]


def test_the_next_outage_is_told_again(told: pytest.LogCaptureFixture) -> None:
    loss = Loss("without", "back")
    for _ in range(2):
        loss.failed(ValueError("why"))
        loss.answered(loss.last_failure)
    assert told.messages == ["without: why", "back"] * 2
