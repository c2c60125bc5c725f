"""``embedcache warm`` from the shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "warming"))  # whose corpora and model these tests use

from flying import until
from warmed import MODEL, settings_of, texts_of, write

from embedcache import EmbeddingsCache

ROOT = Path(__file__).parents[2]


def toy(log: Path, **options: Any) -> list[str]:
    """The words that have the toy model of the tests compute."""
    given = settings_of("", log, **options).options
    return [*("--model", MODEL, "--kind", "warmed:make"), *(f"--option={name}={given[name]}" for name in given)]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_is_embedded_and_then_there(run: Any, url: str, tmp_path: Path, ending: str) -> None:
    corpus = write(tmp_path / f"c.{ending}", ["-"] * 3, body=["one", "two", "one"], page=["1", "2", "3"])
    words = ["warm", str(corpus), "-c", "body", "--metadata", "page, text", "--ttl", "1h", *toy(tmp_path / "log")]
    counted = run(*words, "--dry-run", "--json").json
    assert (counted["rows"], counted["missing"], counted["computed"]) == (3, 2, 0)
    assert run(*words).out.startswith("3 rows: 2 computed, 1 cached already or repeated, 0 that cannot be used, in ")
    again = run(*words, "--json").json
    assert (again["computed"], again["hits"]) == (0, 3)
    with EmbeddingsCache("docs", redis_url=url) as cache:
        entry = cache.get("one", MODEL)
    assert entry is not None
    assert (entry["metadata"], entry["ttl"]) == ({"page": "1", "text": "-"}, 3_600)


def test_rows_that_cannot_be_used_are_named_and_tell_no_terminal_what_to_do(run: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\nnonsense\n{"text": "a nasty \\u001b[31m one"}\n')
    ended = run("warm", str(tmp_path / "c.jsonl"), *toy(tmp_path / "log", refuses="nasty"))
    assert ended.code == 1
    assert "1 computed" in ended.out
    assert "row 2: it is not a line of JSON" in ended.err
    assert "row 3: the model refuses it" in ended.err
    assert "\x1b" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["c.csv", "-c", "body"], 2, "has no column 'body'; it has 'text'"),
        (["c.docx"], 2, "rename it, or name its format"),
        (["not-there.txt"], 5, "cannot read"),
        (["c.csv", "--processes", "0"], 2, "processes"),
        (["c.csv", "--option", "normalize"], 2, "--option is name=value"),
        (["c.csv", "--url", "unix:///there/is/none"], 3, "no answer from"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    run: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.csv", ["one"])
    ended = run("warm", *words)
    assert ended.code == code
    assert said in ended.err


def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(run: Any, url: str, server: Any, tmp_path: Path) -> None:
    texts, log, gate = texts_of(300), tmp_path / "log", tmp_path / "gate"
    gate.touch()
    corpus = write(tmp_path / "c.txt", texts)
    words = ["warm", str(corpus), "--processes", "2", "--batch", "16", "--name", "docs"]
    with subprocess.Popen(
        [sys.executable, "-m", "embedcache", *words, *toy(log, gate=str(gate))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(lambda: len(server.plain_keys()) == 64)
        process.send_signal(signal.SIGINT)
        gate.unlink()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "texts were stored; run it again to go on." in err
    assert "Traceback" not in err
    stored = len(server.plain_keys())
    report = json.loads(run(*words, *toy(log), "--json").out)
    assert report["computed"] == 300 - stored
