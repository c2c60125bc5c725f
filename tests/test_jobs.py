"""Long work in threads: progress, cancelling, failing, and being found again."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest

from pages.ui.jobs import Job, Jobs, Progress

PATIENCE = 10.0


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def until(gate: threading.Event):
    """Work that goes on until the gate is opened, or it is cancelled."""

    def work(progress: Progress) -> str:
        done = 0
        while not gate.is_set():
            done += 1
            progress.tell(done, 1_000_000, "waiting")
            progress.pause(0.001)
        return "through"

    return work


def over(job: Job) -> Job:
    assert job.wait(PATIENCE)
    return job


def test_a_job_tells_how_far_it_is_and_what_came_of_it(jobs, gate):
    job = jobs.start("me", "work", until(gate))
    while job.progress.done < 3:
        time.sleep(0.001)
    assert (job.state, job.progress.total, job.progress.note) == ("running", 1_000_000, "waiting")
    assert job.remaining_seconds > 0
    assert job.rate > 0
    with pytest.raises(RuntimeError, match="the job is running"):
        _ = job.result
    gate.set()
    assert over(job).state == "done"
    assert job.result == "through"
    assert job.remaining_seconds is None
    took = job.seconds
    time.sleep(0.01)
    assert job.seconds == took
    assert job.seconds_since_end >= 0.01


def test_a_cancelled_job_ends_at_its_next_step(jobs, gate):
    job = jobs.start("me", "work", until(gate))
    job.cancel()
    assert job.progress.cancelling
    assert over(job).state == "cancelled"
    assert job.error is None


def test_a_job_that_waits_is_cancelled_at_once(jobs):
    job = jobs.start("me", "work", lambda progress: progress.pause(60))
    job.cancel()
    assert over(job).state == "cancelled"
    assert job.seconds < 30


def test_a_failure_is_kept_for_the_page_and_logged_with_a_reference(jobs, caplog):
    job = over(jobs.start("me", "work", lambda _: {}[1]))
    assert job.state == "failed"
    assert isinstance(job.error, KeyError)
    assert job.reference
    assert job.reference in caplog.text
    assert "KeyError" in caplog.text


def test_one_that_runs_is_not_started_twice(jobs, gate):
    first = jobs.start("me", "work", until(gate))
    assert jobs.start("me", "work", until(gate)) is first
    assert jobs.start("you", "work", until(gate)) is not first
    assert jobs.start("me", "other", until(gate)) is not first
    gate.set()
    over(first)
    assert jobs.start("me", "work", until(gate)) is not first


def test_a_job_is_found_by_its_owner_alone(jobs, gate):
    job = jobs.start("me", "work", until(gate))
    assert jobs.find("me", "work") is job
    assert jobs.find("you", "work") is None
    assert jobs.find("me", "other") is None
    jobs.forget("you", "work")
    jobs.forget("me", "work")
    assert jobs.find("me", "work") is None
    assert over(job).state == "cancelled"


def test_those_over_are_forgotten_the_oldest_first_and_running_ones_never(gate):
    jobs = Jobs(max_jobs=3)
    running = jobs.start("me", "running", until(gate))
    for number in range(5):
        over(jobs.start("me", f"short {number}", lambda _: None))
    assert jobs.find("me", "running") is running
    assert [number for number in range(5) if jobs.find("me", f"short {number}")] == [3, 4]
    gate.set()
    over(running)


def test_what_was_over_long_ago_is_forgotten():
    jobs = Jobs(kept_seconds=0.0)
    over(jobs.start("me", "first", lambda _: None))
    time.sleep(0.001)
    over(jobs.start("me", "second", lambda _: None))
    assert jobs.find("me", "first") is None


def test_the_work_is_let_go_when_it_is_over(jobs):
    class Index:
        """What some work needs."""

    needed = Index()
    there = weakref.ref(needed)
    job = jobs.start("me", "work", partial(lambda index, _: index is not None, needed))
    assert over(job).result
    del needed
    gc.collect()
    assert there() is None


def test_large_results_that_nobody_looks_for_make_room():
    jobs = Jobs(max_result_bytes=250)
    for owner in "abc":
        over(jobs.start(owner, "plan", lambda _: np.zeros(100, np.uint8)))
    over(jobs.start("a", "small", lambda _: "no array"))
    assert [owner for owner in "abc" if jobs.find(owner, "plan")] == ["b", "c"]
    assert jobs.find("a", "small"), "it takes no room"
    assert jobs.find("b", "plan")
    over(jobs.start("d", "plan", lambda _: np.zeros(100, np.uint8)))
    assert jobs.find("d", "plan")
    assert [owner for owner in "abcd" if jobs.find(owner, "plan")] == ["b", "d"], "c was looked for longest ago"


def test_one_result_larger_than_all_room_is_kept_as_long_as_it_is_the_last():
    jobs = Jobs(max_result_bytes=250)
    over(jobs.start("a", "plan", lambda _: np.zeros(1_000, np.uint8)))
    assert jobs.find("a", "plan")
    over(jobs.start("b", "plan", lambda _: np.zeros(100, np.uint8)))
    assert jobs.find("b", "plan")
    assert jobs.find("a", "plan") is None


def test_what_an_owner_who_left_had_done_is_forgotten_when_it_is_over(jobs, gate):
    runs = jobs.start("gone", "work", until(gate))
    over(jobs.start("gone", "plan", lambda _: 1))
    over(jobs.start("here", "plan", lambda _: 2))
    jobs.leave("gone")
    over(jobs.start("here", "more", lambda _: 3))
    assert jobs.find("gone", "plan") is None
    assert jobs.find("gone", "work") is runs, "it goes on to its end"
    assert not runs.progress.cancelling
    gate.set()
    over(runs)
    over(jobs.start("here", "still more", lambda _: 4))
    assert jobs.find("gone", "work") is None
    assert jobs.find("here", "plan").result == 2
