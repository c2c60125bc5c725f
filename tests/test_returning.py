"""After a login the page comes whose link was opened, and never another site."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.types import Message, Receive, Scope, Send

from pages.ui.returning import ReturnToLink

OUT, BACK = "/auth/login", "/oauth2callback"


async def ask(path: str, *, location: str | None = "/", **headers: str) -> dict[str, str]:
    """The headers of the answer to a browser that asks for a path, with those of its own."""

    async def streamlit(scope: Scope, receive: Receive, send: Send) -> None:
        sent_on = [] if location is None else [(b"location", location.encode())]
        await send({"type": "http.response.start", "status": 302, "headers": sent_on})
        await send({"type": "http.response.body", "body": b""})

    async def nothing() -> Message:
        return {"type": "http.request"}

    answered: list[Message] = []

    async def keep(message: Message) -> None:
        answered.append(message)

    given = {"host": "cache.example:8501", **headers}
    scope = {"type": "http", "path": path, "headers": [(k.encode(), v.encode()) for k, v in given.items()]}
    await ReturnToLink(streamlit)(scope, nothing, keep)
    return {name.decode(): value.decode() for name, value in answered[0]["headers"]}


async def test_the_way_out_keeps_the_page_and_the_way_back_leads_there() -> None:
    link = "/lookup?cache=a%20b&key=a%3A1"
    out = await ask(OUT, location="https://provider.example/", referer=f"http://cache.example:8501{link}")
    assert out["location"] == "https://provider.example/"
    cookie = out["set-cookie"].split(";")[0]
    assert "HttpOnly" in out["set-cookie"]
    assert "SameSite=Lax" in out["set-cookie"]
    back = await ask(BACK, cookie=cookie)
    assert back["location"] == link
    assert back["set-cookie"].startswith("embedcache_opened=;")


@pytest.mark.parametrize(
    "referrer", ["", "http://[abc", "https://evil.example/lookup", "http://cache.example:8501//evil.example"]
)
async def test_nothing_is_kept_of_another_sites_page(referrer: str) -> None:
    assert "set-cookie" not in await ask(OUT, referer=referrer)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "lookup",
        "",
        "/a\r\nset-cookie: b=c",
        "/" + "a" * 2_000,
    ],
)
async def test_a_cookie_never_leads_to_another_site(target: str) -> None:
    back = await ask(BACK, cookie=f"embedcache_opened={quote(target, safe='')}")
    assert back == {"location": "/"}


async def test_a_login_that_failed_leads_nowhere() -> None:
    assert await ask(BACK, location=None, cookie="embedcache_opened=%2Flookup") == {}


async def test_other_paths_are_left_as_they_are() -> None:
    assert await ask("/lookup", cookie="embedcache_opened=%2Fbrowse") == {"location": "/"}
