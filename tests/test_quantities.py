"""Spans and sizes as people type them."""

import pytest

from pages.ui.inputs import UnusableInputError
from pages.ui.quantities import bytes_of, seconds_of


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("45", 45),
        ("45 s", 45),
        ("30 sec", 30),
        ("1 minute", 60),
        ("5m", 300),
        ("5 min", 300),
        (" 36 h ", 129_600),
        ("2 hrs", 7_200),
        ("1 hr", 3_600),
        ("7 days", 604_800),
        ("7D", 604_800),
        ("1.5 days", 129_600),
        ("1,5 d", 129_600),
        ("2 weeks", 1_209_600),
        ("1 year", 31_536_000),
        ("0 s", 0),
    ],
)
def test_spans(typed, seconds):
    assert seconds_of(typed) == seconds


@pytest.mark.parametrize("typed", ["", "h", "-1 h", "1 fortnight", "1 h 5", "1e9 s", "٣ h", "one day", "1 mo", "<b>"])
def test_what_is_no_span_is_refused_with_what_is_one(typed):
    with pytest.raises(UnusableInputError, match="45 min, 36 h, 7 days"):
        seconds_of(typed)


@pytest.mark.parametrize(
    ("typed", "size"),
    [("500", 500), ("500 B", 500), ("10 KiB", 10_240), ("10k", 10_240), ("10 kB", 10_000), ("1.5 MiB", 1_572_864)],
)
def test_sizes(typed, size):
    assert bytes_of(typed) == size


@pytest.mark.parametrize("typed", ["", "KiB", "-1", "1 TB of data", "ten", "1 h"])
def test_what_is_no_size_is_refused_with_what_is_one(typed):
    with pytest.raises(UnusableInputError, match="500 B, 10 KiB, 2 MiB"):
        bytes_of(typed)
