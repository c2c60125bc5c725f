"""`docs/monitoring.md` says what is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers import Server, free_port

from embedcache.integrations.instruments import INSTRUMENTS

PAGE = (Path(__file__).parent.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

SCRAPE = """
cache.get("What is AI?", "my-model")
cache.flush_stats()
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode())
"""

TELL = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
"""


def run(code: str, server: Server) -> str:
    """What the code prints, in a process of its own: it registers things for a whole program."""
    environment = {**os.environ, "EMBEDCACHE_URL": server.url}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_tested() -> None:
    assert len(BLOCKS) == 2


def test_the_collectors_are_scraped(valkey: Server) -> None:
    code = (BLOCKS[0] + SCRAPE).replace("9464", str(free_port()))
    printed = run(code, valkey)
    assert 'embedcache_process_misses_total{cache="docs",model="my-model"} 1.0' in printed
    assert 'embedcache_misses_total{cache="docs",model="my-model"} 1.0' in printed
    assert 'embedcache_up{cache="docs"} 1.0' in printed


def test_the_span_is_the_one_that_it_names(valkey: Server) -> None:
    (name,) = re.findall(r'# a span "(.*?)"', BLOCKS[1])
    printed = run(TELL + BLOCKS[1] + "print([span.name for span in exporter.get_finished_spans()])\n", valkey)
    assert printed == f"{[name]}\n"
    assert run(BLOCKS[1], valkey) == ""  # with the API alone


@pytest.mark.parametrize("name", [each.name for each in INSTRUMENTS])
def test_it_names_every_metric(name: str) -> None:
    assert f"`{name}_total`" in PAGE


def test_its_alerts_ask_for_metrics_that_there_are() -> None:
    asked = set(re.findall(r"(embedcache_\w+)[\[)]", PAGE))
    known = {"embedcache_up", *(f"embedcache_{each.name}_total" for each in INSTRUMENTS)}
    assert asked
    assert asked <= known
