"""Why a lookup hits or misses: every reason, sync and async, on real servers."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest
from counted import MODEL, OTHER, VECTOR, item, items, sums, wait_for_expiry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache import EmbeddingsCache, InvalidInputError
from embedcache.explain import MAX_SIMILAR, Reason

texts = st.text(min_size=1, max_size=40).filter(str.strip)


# ------------------------------------------------------------------------------------------------ there is a value


def test_a_hit(counting):
    key = counting.set("text", MODEL, VECTOR)
    found = counting.why("text", MODEL)
    assert (found.reason, found.key, found.is_hit) == (Reason.HIT, key, True)
    assert str(found) == "Hit: the entry is there."


def test_a_hit_of_bytes_and_a_miss_of_the_same_as_text(counting):
    counting.set(b"image", MODEL, VECTOR)
    assert counting.why(b"image", MODEL).is_hit
    found = counting.why("image", MODEL)
    assert (found.reason, found.similar) == (Reason.OTHER_ENTRY, ((b"image", MODEL),))
    assert counting.get("image", MODEL) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value[:-1], "checksum does not fit"),
        (lambda value: value[:30], "checksum does not fit"),
        (lambda value: value[:-5] + bytes([value[-5] ^ 1]) + value[-4:], "checksum does not fit"),
        (lambda value: b"EMB\x02" + value[4:], "another version of embedcache"),
        (lambda _: b"EMB", "another version of embedcache"),
        (lambda _: b"hello", "no packed entry"),
        (lambda _: b"", "no packed entry"),
    ],
)
def test_a_corrupt_entry(counting, server, change, said):
    key = counting.set("text", MODEL, VECTOR)
    server.raw.set(key, change(server.raw.get(key)))
    found = counting.why("text", MODEL)
    assert found.reason is Reason.CORRUPT
    assert said in str(found)
    assert counting.get("text", MODEL) is None


def test_a_value_of_another_type(counting, server):
    server.raw.hset(counting.key_for("text", MODEL), "text", "text")
    found = counting.why("text", MODEL)
    assert found.reason is Reason.CORRUPT
    assert "a list, hash or the like" in str(found)


def test_another_entry_under_the_same_key(counting):
    counting.set("a", "b:c", VECTOR)
    found = counting.why("a:b", "c")
    assert (found.reason, found.similar) == (Reason.OTHER_ENTRY, (("a", "b:c"),))
    assert "'a'" in str(found)


# ------------------------------------------------------------------------------------------------ by key


def test_by_key_what_is_there_and_what_never_was(counting):
    key = counting.set("text", MODEL, VECTOR)
    assert counting.why_by_key(key).is_hit
    for missing in ("c:" + "0" * 64, "another:" + "0" * 64, "no key"):
        assert counting.why_by_key(missing).reason is Reason.NEVER_STORED
    assert counting.stats("1h").lookups == 0


def test_by_key_what_is_wrong_with_a_value(counting, server):
    key, other = counting.set("text", MODEL, VECTOR), counting.key_for("other", MODEL)
    server.raw.copy(key, other)
    found = counting.why_by_key(other)
    assert (found.reason, found.detail) == (Reason.CORRUPT, "the text and the model in it belong under another key")
    server.raw.setrange(key, 100, b"spoilt")
    assert counting.why_by_key(key).reason is Reason.CORRUPT
    server.raw.delete(key)
    server.raw.rpush(key, "a list")
    assert "a list, hash or the like" in str(counting.why_by_key(key))


def test_by_key_of_redisvls_layout(valkey):
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl") as cache:
        for text in ("text", b"bytes"):
            assert cache.why_by_key(cache.set(text, MODEL, VECTOR)).is_hit
        valkey.raw.set(cache.key_for("other", MODEL), "a string")
        assert "it is no hash" in str(cache.why_by_key(cache.key_for("other", MODEL)))


# ------------------------------------------------------------------------------------------------ there was one


def test_an_entry_whose_ttl_ran_out(valkey):
    """Really: no clock is turned."""

    async def ask(cache):
        return await cache.awhy("text", MODEL)

    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        key = cache.set("text", MODEL, VECTOR, ttl=1)
        cache.set("text", OTHER, VECTOR)
        cache.flush_stats()
        assert cache.why("text", MODEL).is_hit
        wait_for_expiry(valkey, key)
        seconds = valkey.raw.time()[0]
        for found in (cache.why("text", MODEL), asyncio.run(ask(cache))):
            assert found.reason is Reason.EXPIRED, "although the text lies under another model"
            assert found.expired_at == pytest.approx(seconds, abs=3)
            assert found.stored_at == pytest.approx(seconds - 1, abs=3)
            assert "its TTL ran out at 20" in str(found)
            assert str(found).endswith(" UTC.")
        by_key = (cache.why_by_key(key), asyncio.run(cache.awhy_by_key(key)))
        assert by_key == (cache.why("text", MODEL),) * 2
        cache.set("text", MODEL, VECTOR, ttl=100)
        assert cache.why("text", MODEL).is_hit
        cache.drop("text", MODEL)
        cache.flush_stats()
        assert cache.why("text", MODEL).reason is Reason.OTHER_MODEL


@pytest.mark.parametrize("ttl", [None, 100])
def test_an_entry_that_is_gone_before_its_time(counting, server, ttl):
    key = counting.set("text", MODEL, VECTOR, ttl=ttl)
    counting.flush_stats()
    server.raw.delete(key)
    found = counting.why("text", MODEL)
    assert found.reason is Reason.GONE
    seconds = server.raw.time()[0]
    assert found.stored_at == pytest.approx(seconds, abs=3)
    assert found.expired_at == (ttl and pytest.approx(seconds + ttl, abs=3))
    assert str(found).startswith("Miss: the entry was stored at 20")
    assert str(found).endswith(" UTC, and then evicted, or removed by another program.")


def test_an_entry_that_was_kept_for_ever_did_not_expire(counting, server):
    key = counting.set("text", MODEL, VECTOR, ttl=100)
    counting.flush_stats()
    counting.persist(key)
    counting.flush_stats()
    server.raw.delete(key)
    found = counting.why("text", MODEL)
    assert (found.reason, found.expired_at) == (Reason.GONE, None)


@pytest.mark.parametrize("remove", ["drop", "drop_by_key", "clear"])
def test_an_entry_that_was_removed_on_purpose_did_not_expire(counting, remove):
    key = counting.set("text", MODEL, VECTOR, ttl=100)
    counting.flush_stats()
    {
        "drop": lambda: counting.drop("text", MODEL),
        "drop_by_key": lambda: counting.drop_by_key(key),
        "clear": counting.clear,
    }[remove]()
    counting.flush_stats()
    assert counting.why("text", MODEL).reason is Reason.NEVER_STORED


# ------------------------------------------------------------------------------------------------ something alike


@pytest.mark.parametrize("max_scan", [0, 100_000])
def test_the_same_text_with_other_options_or_under_another_model(counting, max_scan):
    counting.mset([item("text", f"{MODEL}?normalize=true"), item("text", OTHER), item("other", OTHER)])
    counting.flush_stats()
    found = counting.why("text", MODEL, max_scan=max_scan)
    assert (found.reason, found.similar) == (Reason.OTHER_OPTIONS, (("text", f"{MODEL}?normalize=true"),))
    assert f"'{MODEL}?normalize=true'" in str(found)
    found = counting.why("other", MODEL, max_scan=max_scan)
    assert (found.reason, found.similar) == (Reason.OTHER_MODEL, (("other", OTHER),))
    assert f"under another model: '{OTHER}'" in str(found)


def test_without_statistics_a_scan_finds_other_models(make_cache):
    cache = make_cache(stats=False)
    cache.set(b"image", OTHER, VECTOR)
    assert cache.why(b"image", MODEL).reason is Reason.OTHER_MODEL
    assert cache.why(b"image", MODEL, max_scan=0).reason is Reason.NEVER_STORED


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("what is it?", "What is it?"),
        ("What is it?", "what is it?"),
        ("WHAT", "what"),
        ("what is it", "  what \t is\nit "),
        ("Café", nfd("Café")),
        (nfd("Café"), "Café"),
        ("café au lait", nfd("  Café  AU lait")),
        ("full width", "\uff46\uff55\uff4c\uff4c width"),
        ("strasse", "STRASSE"),
        ("STRASSE", "straße"),
    ],
)
def test_a_text_spelt_otherwise_is_found_without_a_scan(counting, stored, asked):
    counting.set(stored, MODEL, VECTOR)
    found = counting.why(asked, MODEL, max_scan=0)
    assert (found.reason, found.similar) == (Reason.OTHER_SPELLING, ((stored, MODEL),))


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("iPhone and MacBook", "iphone AND macbook"),
        ("two  spaces inside", "two spaces inside"),
        ("\uff26\uff35\uff2c\uff2c width", "full width"),
        ("Straße", "strasse"),
        ("x" * 12_000 + " Long", "x" * 12_000 + " long"),
    ],
)
def test_a_text_spelt_otherwise_is_found_by_a_scan(counting, stored, asked):
    counting.mset([item(stored), *items(5)])
    assert counting.why(asked, MODEL, max_scan=0).reason is Reason.NEVER_STORED
    found = counting.why(asked, MODEL)
    assert (found.reason, found.similar) == (Reason.OTHER_SPELLING, ((stored, MODEL),))
    assert "differs only in case, white space or Unicode form" in str(found)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain commands"])
def test_a_scan_passes_over_what_it_cannot_read_and_what_is_not_the_caches(counting, server, scripts):
    counting.cache._able.scripts = scripts
    counting.mset(items(30))
    counting.set("iPhone", OTHER, VECTOR)
    server.raw.rpush("c:" + "0" * 64, "a list")
    server.raw.set("c:" + "1" * 64, b"EMB\x01" + bytes(40))
    server.raw.set("c:" + "2" * 64, b"short")
    server.raw.set(b"c:\xff" + b"3" * 63, b"no name of ours")
    server.raw.set("d:" + "4" * 64, b"another cache's")
    found = counting.why("IPHONE", MODEL)
    assert (found.reason, found.similar) == (Reason.OTHER_SPELLING, (("iPhone", OTHER),))
    assert counting.why("nothing like it", MODEL).reason is Reason.NEVER_STORED


def test_only_so_many_alike_are_told(counting):
    counting.mset([item("text", f"m{number}") for number in range(3 * MAX_SIMILAR)])
    for max_scan in (0, 100_000):
        counting.flush_stats()
        found = counting.why("text", "none", max_scan=max_scan)
        assert found.reason is Reason.OTHER_MODEL
        assert len(found.similar) == MAX_SIMILAR


def test_never_stored(counting):
    counting.mset(items(3))
    found = counting.why("something else", MODEL)
    assert (found.reason, found.similar) == (Reason.NEVER_STORED, ())
    assert (found.stored_at, found.expired_at) == (None, None)
    assert str(found).startswith("Miss: never stored in this cache")


# ------------------------------------------------------------------------------------------------ manners


def test_asking_why_is_no_lookup_and_restarts_no_ttl(make_cache, server):
    cache = make_cache(ttl=500, stats=True)
    key = cache.set("text", MODEL, VECTOR)
    server.raw.expire(key, 100)
    cache.flush_stats()
    before = sums(cache.stats("all"))
    for text in ("text", "TEXT", "none"):
        cache.why(text, MODEL)
    assert server.pttl(key) <= 100_000
    cache.flush_stats()
    assert sums(cache.stats("all")) == before
    assert cache.stats("all").lookups == 0


def test_bad_input_is_an_error(counting):
    for text, model_name in (("", MODEL), ("text", ""), (None, MODEL), ("\ud800", MODEL), ("text", None)):
        with pytest.raises(InvalidInputError):
            counting.why(text, model_name)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stored=texts, asked=texts, other=st.text(min_size=1, max_size=20).filter(str.strip))
def test_any_text_is_explained_in_a_sentence(valkey, stored, asked, other):
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        cache.clear()
        cache.set(stored, other, VECTOR)
        for text, model_name in ((asked, MODEL), (stored, MODEL), (stored.swapcase(), other), (stored, other)):
            found = cache.why(text, model_name)
            assert found.is_hit == (cache.get(text, model_name) is not None)
            said = str(found)
            assert said.startswith(("Hit: ", "Miss: "))
            assert said.endswith(".")
            assert said.isprintable(), "no control character of a text reaches a terminal"


@pytest.mark.parametrize(
    "text",
    ["{models}", "{0}", "%s", "<script>alert(1)</script>", "\x1b[31mred\x00", "\u202eright to left", "'\"\\", "a\r\nb"],
)
def test_hostile_texts_are_shown_as_what_they_are(counting, text):
    counting.set(text.upper() + "  x", MODEL, VECTOR)
    counting.set(text, text, VECTOR)
    found = counting.why(text.lower() + " X", MODEL)
    assert found.reason is Reason.OTHER_SPELLING
    assert repr(text.upper() + "  x") in str(found)
    assert str(found).isprintable()
    assert repr(text) in str(counting.why(text, MODEL))


@pytest.mark.parametrize(
    "large",
    [
        "x" * (8 * 1024 * 1024),
        "é" * 500_000,
        "a" + "\u0301\u0323" * (2 * 1024 * 1024 - 1),
        "\u0f73" * 2_000_000,
    ],
    ids=["plain", "accents", "marks", "marks in one"],
)
def test_the_largest_texts_are_explained(valkey, large):
    """The marks would be sorted for hours; the test's own time limit tells."""
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        assert cache.why(large, MODEL).reason is Reason.NEVER_STORED
        cache.set(large, OTHER, [1.0])
        cache.flush_stats()
        assert cache.why(large, OTHER).is_hit
        found = cache.why(large, MODEL)
        assert found.reason is Reason.OTHER_MODEL
        assert cache.why(large[:-1] + "B", MODEL).reason is Reason.NEVER_STORED
        assert len(str(found)) < 200
