"""Benchmark: what the cache saves, measured here and now, and kept for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import pandas as pd
import streamlit as st

from embedcache import EmbedcacheError, benchmark
from embedcache.benchmark import Run, ScenarioResult, Settings
from embedcache.benchmark import runs as benchmark_runs
from embedcache.benchmark.runs import SavedRuns
from embedcache.vectorizers import DEFAULT_MODEL, HFTextVectorizer
from pages.ui import (
    charts,
    failures,
    inputs,
    longwork,
    saved_runs,
    session,
    timing_frames,
    timing_words,
    timings,
    widgets,
    wording,
)
from pages.ui.jobs import Job, Progress

JOB = "benchmark"
OUTCOME_KEY = "benchmark_outcome"
SHOWN_KEY = "benchmark_shown"
SIZES = (1, 10, 50, 100, 500, 1_000, 5_000)
DEFAULTS = Settings()
UNIT = ("timing", "timings")
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What this user's benchmark gave.

    Attributes:
        server: The server it ran on, as `session.server_key` names it.
        run: What was measured.
        unsaved: Why it could not be saved, or None where it was.
    """

    server: str
    run: Run
    unsaved: EmbedcacheError | None


# -------------------------------------------------------------------------------------------------- controls


def _choose() -> tuple[Settings | None, str]:
    """What to measure, or None where that cannot be used, which was said; and the model."""
    words, options = st.columns([3, 2], gap="large")
    with words:
        typed = st.text_area(
            "Texts, one per line",
            "\n".join(benchmark.SENTENCES),
            height=330,
            key="benchmark_texts",
            persist_state="session",
            help="What is embedded and looked up. Your own texts tell most: the model takes longer for long ones.",
        )
    with options:
        scenarios = _choose_scenarios()
        model = st.selectbox(
            "Model",
            [DEFAULT_MODEL],
            accept_new_options=True,
            key="benchmark_model",
            persist_state="session",
            disabled="cache" not in scenarios,
            help="For comparing without and with the cache. The one listed is on this machine. The other comparisons "
            "use its dimension, or without it random vectors of 384 numbers.",
        )
        iterations = st.number_input(
            "Iterations",
            min_value=1,
            max_value=benchmark.MAX_ITERATIONS,
            value=DEFAULTS.iterations,
            step=10,
            key="benchmark_iterations",
            persist_state="session",
            help="Timings taken of each. From 100 on, the 99th percentile says something.",
        )
        sizes = st.multiselect(
            "Batch sizes",
            SIZES,
            default=DEFAULTS.batch_sizes,
            format_func=wording.count,
            key="benchmark_sizes",
            persist_state="session",
            disabled="sizes" not in scenarios,
            help="Entries per call.",
        )
    return _settings(typed or "", int(iterations), scenarios, sizes), model or DEFAULT_MODEL


def _choose_scenarios() -> list[str]:
    st.caption("What to compare")
    cells = st.grid(2, min_column_width=200)
    return [
        name
        for name in benchmark.SCENARIOS
        if cells.checkbox(timing_words.title(name), True, key=f"benchmark_compare_{name}", persist_state="session")
    ]


def _settings(typed: str, iterations: int, scenarios: Sequence[str], sizes: Sequence[int]) -> Settings | None:
    texts, _ = inputs.lines_of(typed)
    try:
        return Settings(tuple(texts), iterations, tuple(scenarios), tuple(sizes))
    except EmbedcacheError as error:
        widgets.show_error(error)
        return None


# -------------------------------------------------------------------------------------------------- the work


@st.cache_resource(show_spinner=False)
def _starters() -> WeakKeyDictionary[Job, str]:
    """Who started which benchmark, over all sessions: one runs at a time, for two would slow each other."""
    return WeakKeyDictionary()


def _start(settings: Settings, model: str) -> Job:
    server, measure = session.server_key(), session.measuring()
    # What may write is settled here, for the session is not known where the job works.
    keep = partial(benchmark_runs.save, session.open_cache(session.cache_name()).connection)
    needs_model = any(benchmark.SCENARIOS[key].needs_model for key in settings.scenarios)
    vectorizer = session.shared_model(model) if needs_model else None
    loading = None if vectorizer is None else _load(vectorizer)

    def work(progress: Progress) -> Outcome:
        _wait_for(loading, progress)
        run = measure(settings, vectorizer, progress.tell)
        try:
            keep(run)
        except EmbedcacheError as error:
            return Outcome(server, run, error)  # what was measured is worth showing all the same
        return Outcome(server, run, None)

    job = longwork.start(JOB, work, shared=True)
    _starters().setdefault(job, longwork.owner())
    return job


def _load(vectorizer: HFTextVectorizer) -> Job | None:
    """Loads the model in a job of its own: a benchmark can be cancelled at once, and loading cannot."""
    if vectorizer.loaded:
        return None
    return longwork.start(f"{JOB} loads {vectorizer.model_name}", lambda _: vectorizer.load() is not None, shared=True)


def _wait_for(loading: Job | None, progress: Progress) -> None:
    if loading is None:
        return
    progress.tell(0, 0, "Loading the model")
    while loading.running:
        progress.pause(POLL_SECONDS)
    if loading.error is not None:
        raise loading.error


def _show_job(job: Job) -> None:
    """Draws a benchmark that runs, and to its owner how it ended. A result is kept for this user's next runs."""
    if _starters().get(job) == longwork.owner():
        if longwork.shown(job, "Benchmark", unit=UNIT) and job.result.run.run_id != st.session_state.get(SHOWN_KEY):
            st.session_state[OUTCOME_KEY] = job.result
            st.session_state[SHOWN_KEY] = job.result.run.run_id
            st.session_state.pop("benchmark_run", None)  # the newest is chosen
    elif job.running:
        st.info(
            "A benchmark is running already, started by somebody else or in another tab. Two at once would slow each "
            "other, and both would measure wrong. Yours can start when it is over.",
            icon=":material/hourglass_top:",
        )
        longwork.shown(job, "The other benchmark", unit=UNIT, cancel=session.may_write())


# -------------------------------------------------------------------------------------------------- one run


def _choose_run(saved: SavedRuns) -> Run | None:
    """The run to show: the one chosen, at first the newest; None where there is none."""
    outcome: Outcome | None = st.session_state.get(OUTCOME_KEY)
    own = outcome if outcome and outcome.server == session.server_key() else None
    runs = {run.run_id: run for run in saved.runs}
    if own is not None and own.unsaved is not None:
        runs = {own.run.run_id: own.run, **runs}
    if not runs:
        return None
    chosen = st.selectbox(
        "Run",
        list(runs),
        format_func=lambda run_id: _label(runs[run_id]),
        key="benchmark_run",
        width=420,
    )
    if own is not None and chosen == own.run.run_id:
        return own.run
    with widgets.errors_as_sentences():
        return benchmark_runs.read_run(saved_runs.connection(), chosen)


def _label(run: Run) -> str:
    speedup = timing_frames.cache_speedup(run)
    found = "" if speedup is None else f", {timing_words.times(speedup)} times faster"
    return f"{wording.moment(run.at, session.zone())}{found}"


def _show_run(run: Run) -> None:
    outcome: Outcome | None = st.session_state.get(OUTCOME_KEY)
    if outcome is not None and outcome.run is run and outcome.unsaved is not None:
        st.warning(
            f"This run could not be saved, and is gone when you leave. {failures.sentence(outcome.unsaved)}",
            icon=":material/warning:",
        )
    if cards := timing_words.cards(run):
        cells = widgets.metric_cells()
        for card in cards:
            cells.metric(card.label, card.value, border=True, help=card.meaning)
    for result in run.results:
        _show_result(result)
    _show_environment(run)


def _show_result(result: ScenarioResult) -> None:
    st.subheader(timing_words.title(result.key), anchor=False)
    if words := timing_words.answer(result):
        st.write(words)
    figures = _figures(result)
    cells = st.grid(len(figures), min_column_width=280, gap=("small", "large"))
    for name, figure in figures.items():
        with cells.container():
            st.caption(name)
            st.plotly_chart(
                figure,
                key=f"benchmark_{result.key}_{name}",
                config=charts.CONFIG,
                alt=f"{name}, {timing_words.title(result.key)}: the table below has the numbers.",
            )
    _show_table(result)


def _figures(result: ScenarioResult) -> dict[str, object]:
    """What to draw of a scenario, each under its caption."""
    theme = session.theme()
    figures: dict[str, object] = {}
    if result.key == "sizes":
        figures["Entries per second"] = timings.throughput(result.measurements, theme)
    if any(each.bytes_per_entry is not None for each in result.measurements):
        figures["Memory"] = timings.memory(result.measurements, theme)
    for operation, name in timing_words.OPERATIONS.items():
        if measured := [each for each in result.measurements if each.operation == operation]:
            figures[name] = timings.boxes(timing_words.named(result.key, measured), theme)
    return figures


def _show_table(result: ScenarioResult) -> None:
    table = timing_frames.measurements_frame(result.measurements)
    if table["bytes"].isna().all():
        table = table.drop(columns="bytes")
    milliseconds = {
        name: st.column_config.NumberColumn(label, format="%.3f ms", width=84)
        for name, label in (("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("mean", "Mean"))
    }
    st.dataframe(
        table,
        hide_index=True,
        height=min(420, 38 + 35 * len(table)),
        column_config={
            "operation": st.column_config.TextColumn("What", width=64),
            "variant": st.column_config.TextColumn("How", width=124),
            **milliseconds,
            "texts": st.column_config.NumberColumn("Texts per call", format="localized", width=96),
            "rate": st.column_config.NumberColumn("Texts/s", format="%,.0f", width=80),
            "calls": st.column_config.NumberColumn("Calls timed", format="localized", width=88),
            "bytes": st.column_config.NumberColumn("Bytes per entry", format="%,.0f", width=108),
        },
        key=f"benchmark_table_{result.key}",
    )
    orange = "" if result.key == "sizes" else " Orange is what the others are compared with."
    st.caption(f"Times are per call. Of fewer than 100 calls, p99 is the slowest one.{orange}")


def _show_environment(run: Run) -> None:
    where = run.environment
    embedded = ", embedded" if where.embedded else ""
    facts = {
        "When": f"{wording.moment(run.at, session.zone())} ({session.zone().key}), in {wording.elapsed(run.seconds)}",
        "Texts": f"{wording.counted(run.texts, 'text')} of {wording.counted(run.characters, 'character')} in all; "
        "the texts themselves are not kept",
        "Vectors": f"{wording.counted(run.dimension, 'number')} each",
        "Server": f"{where.server}{embedded}",
        "Machine": f"{where.cpu}, {wording.counted(where.cpus, 'CPU')}, {where.platform}",
        "Model": where.model or "none was used",
        "Versions": f"embedcache {where.embedcache}, Python {where.python}, redis-py {where.redis_py}, "
        f"numpy {where.numpy}",
    }
    st.subheader("Where this was measured", anchor=False)
    st.dataframe(
        pd.DataFrame({"fact": list(facts), "value": [wording.one_line(value, 300) for value in facts.values()]}),
        hide_index=True,
        column_config={
            "fact": st.column_config.TextColumn("Fact", width=96),
            "value": st.column_config.TextColumn("Value", width="large"),
        },
        key="benchmark_environment",
    )


# -------------------------------------------------------------------------------------------------- nothing yet


def _teach() -> None:
    with st.container(border=True):
        st.subheader("Nothing measured yet", anchor=False)
        st.write(
            "Run the benchmark, and this page shows how many times faster the cache answers than the model computes, "
            "what batches and number types change, and how that compares with earlier runs. It takes some ten seconds, "
            "in caches of its own that are removed afterwards; yours are not touched. Or from Python:"
        )
        st.code(
            "from embedcache import HFTextVectorizer, benchmark\n"
            "run = benchmark.run(vectorizer=HFTextVectorizer())\n"
            "print(run.result('cache').comparisons()[0].speedup)",
            language=None,  # the colours of highlighted code are too pale to read, in both themes
            wrap_lines=True,
        )


# -------------------------------------------------------------------------------------------------- the page

widgets.header("Benchmark", "What the cache saves on this machine and this server, measured with your texts.")
widgets.show_notice()
settings, model = _choose()
job = longwork.find(JOB, shared=True)
reason = session.why_read_only()
pressed = st.button(
    "Run the benchmark",
    type="primary",
    icon=":material/speed:",
    key="benchmark_button",
    disabled=settings is None or reason is not None or (job is not None and job.running),
    help=f"{reason} A benchmark writes to the server." if reason else None,
)
with widgets.errors_as_sentences():
    widgets.require_server()
    if pressed and settings is not None and session.may_write():
        _start(settings, model)
        st.rerun()  # so that the button above knows that one is running
if job is not None:
    _show_job(job)
with widgets.errors_as_sentences():
    saved = benchmark_runs.list_runs(saved_runs.connection())

run = _choose_run(saved)
if run is None:
    _teach()
    st.stop()
_show_run(run)
if saved.runs:
    saved_runs.show(saved)
