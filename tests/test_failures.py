"""What goes wrong on a page: always a sentence, never a traceback, and the rest in the log."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import look_up, open_page, own_server, press, words
from servers import running
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, InvalidInputError
from embedcache.errors import EmbeddedServerError, ReadOnlyError
from pages.ui import inputs, session


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


def run(folder: Path, body: str) -> AppTest:
    """Runs a page of this body within the guard that `app.py` has."""
    script = folder / "script.py"
    head = "import streamlit as st\nfrom pages.ui import failures, widgets\nwith failures.guard():\n"
    script.write_text(head + textwrap.indent(textwrap.dedent(body), "    "))
    app = AppTest.from_file(str(script), default_timeout=30).run()
    assert not app.exception
    return app


# ------------------------------------------------------------------------------------------------ the unexpected


def test_the_unexpected_is_a_sentence_and_the_log_has_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = run(tmp_path, "st.write('before')\n{'a': 1}['a secret key']")
    (said,) = [error.value for error in app.error]
    assert "before" in words(app)
    reference = re.search(r"`([0-9a-f]{8})`", said)
    assert reference
    assert "secret" not in repr(app)
    assert "Traceback" not in repr(app)
    (record,) = [record for record in caplog.records if reference[1] in record.getMessage()]
    assert record.exc_info
    assert "a secret key" in str(record.exc_info[1])


def test_each_failure_has_a_reference_of_its_own(tmp_path: Path) -> None:
    assert run(tmp_path, "1 / 0").error[0].value != run(tmp_path, "1 / 0").error[0].value


def test_stop_and_rerun_pass(tmp_path: Path) -> None:
    assert not run(tmp_path, "st.write('a')\nst.stop()").error
    app = run(
        tmp_path,
        """
        if 'again' not in st.session_state:
            st.session_state['again'] = True
            st.rerun()
        st.write('second run')
        """,
    )
    assert not app.error
    assert "second run" in words(app)


def test_a_page_that_failed_is_shown_again(tmp_path: Path) -> None:
    app = run(
        tmp_path,
        """
        st.session_state['runs'] = st.session_state.get('runs', 0) + 1
        if st.session_state['runs'] == 1:
            raise RuntimeError
        st.write('works')
        """,
    )
    press(app, "Show the page again")
    assert not app.error
    assert "works" in words(app)


@pytest.mark.parametrize("page", ["overview", "hit_rates", "lookup", "settings"])
def test_every_page_is_within_the_guard(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(page)

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session, "look_at_server", fail)
    app.run()
    assert not app.exception
    assert "that is our mistake" in app.error[0].value


# ------------------------------------------------------------------------------------------------ errors of ours


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidInputError("**x** <b>"), "**This cannot be used; nothing was stored or changed.** `**x** <b>`"),
        (
            EmbeddedServerError("no binary"),
            "**The embedded server cannot be started.** `no binary` When that is mended, this page comes back by "
            "itself.",
        ),
        (ReadOnlyError("refused"), "**Nothing was changed.** This page only looks."),
        (inputs.UnusableInputError("Type a text."), "Type a text."),
    ],
)
def test_errors_of_ours_are_sentences(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "error_of_this_test", error, raising=False)
    body = """
        from pages.ui import session
        with widgets.errors_as_sentences():
            raise session.error_of_this_test
        """
    app = run(tmp_path, body)
    assert [each.value for each in app.error] == [said]
    again = [button.label for button in app.button]
    assert again == (["Try again"] if isinstance(error, EmbeddedServerError) else [])


# ------------------------------------------------------------------------------------------------ the server


def test_the_frame_needs_no_look_at_the_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a million entries, such a look takes seconds."""

    def look(*_: object, **__: object) -> None:
        pytest.fail("a page counted entries to draw its frame")

    app = open_page("embed")
    monkeypatch.setattr("embedcache.inspector.find_caches", look)
    for page in ("embed", "hit_rates", "settings"):
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        assert not app.error


def test_caches_of_others_are_offered() -> None:
    with EmbeddingsCache("theirs") as theirs:
        theirs.set("t", "m", [1.0])
        assert "theirs" in open_page("embed").selectbox(key=session.CACHE_KEY).options


def test_the_page_says_so_and_keeps_what_was_typed_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("valkey9") as server:
        monkeypatch.setenv("EMBEDCACHE_URL", server.url)
        app = look_up(open_page("lookup"), "typed")
        server.stop()
        for _ in range(4):  # in the end, no call of the pages' own waits any more
            app.run()
            assert "does not answer" in app.error[0].value
        assert any(cache.connection.outage for cache in session.opened_caches())
        assert app.text_area(key="lookup_text").value == "typed"
        server.start()
        press(app, "Try again")
        assert not app.error
        assert app.text_area(key="lookup_text").value == "typed"
