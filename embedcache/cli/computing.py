"""Commands that compute: ``embed``, ``verify``, ``bench``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from embedcache import benchmark
from embedcache.benchmark import SCENARIOS, Run
from embedcache.benchmark import runs as saved_runs
from embedcache.cli import choosing, options, output, vectorizing
from embedcache.cli.exits import Exit
from embedcache.errors import InvalidInputError
from embedcache.transfer.whole_files import whole_file, writing
from embedcache.vectorizers import HFTextVectorizer
from embedcache.vectorizers.drift_report import DriftEntry, DriftReport
from embedcache.vectorizers.report import EmbedReport

_NUMBERS_SHOWN = 4


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts; without any, each line of standard input is one.", show_default=False),
    ] = None,
    model: options.Model = None,
    kind: vectorizing.Kind = vectorizing.HUGGINGFACE,
    option: vectorizing.Options = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the matrix to this .npy file.")] = None,
    ttl: Annotated[
        int | None,
        typer.Option("--ttl", parser=choosing.whole_span, metavar="TIME", help="New entries live so long: 7d."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute all, and store nothing.")] = False,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Embed texts through the cache: what it has is read, what it lacks is computed and stored."""
    wanted = texts or _lines()
    if not wanted:
        raise InvalidInputError("there is no text to embed")
    if out is not None and out.suffix != ".npy":
        raise InvalidInputError(f"--out names a .npy file, not {str(out)!r}")
    with options.opened(url, name, layout) as cache, output.progress("Embedding") as tell:
        vectorizer = vectorizing.settings(model, kind, option).using(cache)
        report = vectorizer.embed_report(wanted, ttl=ttl, skip_cache=no_cache, on_progress=tell)
    if out is not None:
        _save(out, report)
    if report.cache_failure:
        output.note(f"The cache could not be used, the vectors are right all the same: {report.cache_failure}")
    _show_vectors(wanted, report, vectorizer.model_name, out, json=json)


def _lines() -> list[str]:
    try:
        return [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"standard input is no {error.encoding} text: {error.reason}") from error


def _save(out: Path, report: EmbedReport) -> None:
    with whole_file(out, replace=True) as draft, writing(out):
        np.save(draft.file, report.vectors, allow_pickle=False)


def _show_vectors(texts: list[str], report: EmbedReport, model_name: str, out: Path | None, *, json: bool) -> None:
    if json:
        rows: list[dict[str, Any]] = [
            {"text": text, "hit": bool(hit)} | ({} if out else {"embedding": vector})
            for text, hit, vector in zip(texts, report.hits, report.vectors, strict=True)
        ]
        output.show_json({"model_name": model_name, "dimension": report.vectors.shape[1], "texts": rows})
        return
    output.show_table(
        ("text", "hit", "vector"),
        (
            (
                output.plain(text),
                "hit" if hit else "computed",
                ", ".join(f"{number:.4f}" for number in vector[:_NUMBERS_SHOWN]) + ", …",
            )
            for text, hit, vector in zip(texts, report.hits, report.vectors, strict=True)
        ),
        empty="",
    )
    output.note(
        f"{int(report.hits.sum()):,} of {len(texts):,} were cached; vectors of {report.vectors.shape[1]} dimensions"
        + (f" are in {out}." if out else ".")
    )


def verify(
    sample: Annotated[int, typer.Option("--sample", min=1, max=20_000, help="How many entries.")] = 100,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="The cosine distance that may be.")] = 1e-3,
    model: options.Model = None,
    kind: vectorizing.Kind = vectorizing.HUGGINGFACE,
    option: vectorizing.Options = None,
    url: options.Url = None,
    name: options.Name = options.DEFAULT_NAME,
    layout: options.Layout = "packed",
    json: options.Json = False,
) -> None:
    """Embed a sample of cached texts anew, and tell whether the cache has what the model gives."""
    with options.opened(url, name, layout, read_only=True) as cache, output.progress("Embedding anew") as tell:
        vectorizer = vectorizing.settings(model, kind, option).using(cache)
        report = vectorizer.verify(sample, tolerance=tolerance, on_progress=tell)
    if json:
        output.show_json(_drift_as_json(report))
    else:
        typer.echo(output.plain(report, None))
        output.show_table(
            ("text", "cosine distance", "dimensions"),
            ((output.plain(each.text), each.distance, each.dimension) for each in report.outliers),
            empty="No entry lies too far off.",
        )
    if not report.ok:
        raise typer.Exit(Exit.NOTHING)


def _drift_as_json(report: DriftReport) -> dict[str, Any]:
    lists = ("worst", "outliers", "other_length", "wrong_dimension", "refused", "other_dtype")
    record = {
        name: getattr(report, name) for name in ("model_names", "checked", "dimension", "tolerance", "too_coarse")
    }
    record |= {"ok": report.ok, "unreadable": report.unreadable, "distances": report.distances}
    return record | {name: [_entry(each) for each in getattr(report, name)] for name in lists}


def _entry(each: DriftEntry) -> dict[str, Any]:
    record = asdict(each)
    return output.json_text(record.pop("text")) | record


# ------------------------------------------------------------------------------------------------ benchmark


def bench(
    scenarios: Annotated[
        list[str] | None, typer.Argument(help=f"Which: {', '.join(SCENARIOS)}.", show_default="those without a model")
    ] = None,
    iterations: Annotated[int, typer.Option("--iterations", "-i", help="Timings of each variant.")] = 50,
    dimension: Annotated[int, typer.Option("--dimension", help="Of random vectors, where no model makes them.")] = 384,
    model: options.Model = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the run on the server, for the dashboard.")] = False,
    url: options.Url = None,
    json: options.Json = False,
) -> None:
    """Time the cache in use: with and without it, one by one and at once, by batch size, dtype and layout.

    Nothing of your caches is touched: it has one of its own, and cleans up.
    """
    chosen = tuple(scenarios or [key for key, each in SCENARIOS.items() if not each.needs_model])
    settings = benchmark.Settings(iterations=iterations, scenarios=chosen, dimension=dimension)
    needs_model = any(SCENARIOS[key].needs_model for key in chosen)
    vectorizer = HFTextVectorizer(options.model_or_default(model)) if needs_model else None
    with output.progress("Timing") as tell:
        run = benchmark.run(url, settings, vectorizer, lambda done, total, _note: tell(done, total or None))
    if save:
        with options.opened(url, options.DEFAULT_NAME) as cache:
            saved_runs.save(cache.connection, run)
    if json:
        output.show_json(_run_as_json(run))
        return
    for result in run.results:
        typer.echo(f"\n{SCENARIOS[result.key].title}: {SCENARIOS[result.key].question}")
        output.show_table(
            ("variant", "operation", "texts", "p50", "p95", "p99", "texts per second"),
            (
                (
                    each.variant,
                    each.operation,
                    each.texts,
                    output.span(each.p50),
                    output.span(each.p95),
                    output.span(each.p99),
                    round(each.texts_per_second),
                )
                for each in result.measurements
            ),
            empty="Nothing was timed.",
        )


def _run_as_json(run: Run) -> dict[str, Any]:
    record = asdict(run)
    for result in record["results"]:
        for measurement in result["measurements"]:
            del measurement["samples"]
    return record
