"""A small OpenID Connect provider: who comes chooses on its page who they are.

The code flow of OpenID Connect Core, section 3.1, with PKCE, a client secret, a nonce, and ID tokens signed with RS256.
Each code is good once.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "dashboard", "the client's secret"
LIFE_SECONDS = 60


@dataclass(slots=True)
class Provider:
    """One that runs.

    Attributes:
        address: Where.
        people: What ID tokens say of each who can choose to log in, by what the page calls them.
        forged: Those whose tokens are signed with a key that the provider does not name.
        logged_out: How many logouts it was told of.
    """

    address: str
    people: Mapping[str, Mapping[str, Any]]
    forged: frozenset[str]
    logged_out: int = 0
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "ours"}))
    strangers_key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "ours"}))
    codes: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    def secrets_toml(self, editors: list[str]) -> str:
        """What the dashboard's secrets have to say for this provider."""
        return f"""
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{secrets.token_hex(32)}"
client_id = "{CLIENT_ID}"
client_secret = "{CLIENT_SECRET}"
server_metadata_url = "{self.address}/.well-known/openid-configuration"

[embedcache]
editors = {json.dumps(editors)}
"""

    # ------------------------------------------------------------------------------------------ what it answers

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.address,
            **{f"{name}_endpoint": f"{self.address}/{name}" for name in ("authorization", "token", "end_session")},
            "jwks_uri": f"{self.address}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def page(self, asked: dict[str, str]) -> str:
        """The page on which one chooses who one is."""
        links = []
        for person in self.people:
            code = secrets.token_urlsafe(16)
            self.codes[code] = (person, asked)
            back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
            links.append(f'<p><a href="{html.escape(back)}">{html.escape(person)}</a></p>')
        return f"<!doctype html><title>Provider</title><h1>Who are you?</h1>{''.join(links)}"

    def token(self, sent: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """What a code is worth; None where the client, the code or its proof is wrong."""
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        person, asked = self.codes.pop(sent.get("code", ""), (None, {}))
        proof = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
        if (
            person is None
            or authorization != f"Basic {basic}"
            or asked.get("code_challenge") != challenge
            or asked["redirect_uri"] != sent.get("redirect_uri")
        ):
            return None
        now = int(time.time())
        claims = {
            "iss": self.address,
            "aud": CLIENT_ID,
            "sub": hashlib.sha256(person.encode()).hexdigest(),
            "iat": now,
            "exp": now + LIFE_SECONDS,
            "nonce": asked["nonce"],
            **self.people[person],
        }
        key = self.strangers_key if person in self.forged else self.key
        signed = jwt.encode({"alg": "RS256", "kid": "ours"}, claims, key)
        return {"access_token": "none", "token_type": "Bearer", "expires_in": LIFE_SECONDS, "id_token": signed}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/.well-known/openid-configuration":
            self._answer(self.provider.metadata())
        elif url.path == "/jwks":
            self._answer({"keys": [self.provider.key.as_dict(private=False, use="sig", alg="RS256")]})
        elif url.path == "/authorization" and asked.get("client_id") == CLIENT_ID and "openid" in asked["scope"]:
            self._answer(self.provider.page(asked))
        elif url.path == "/end_session":
            self.provider.logged_out += 1
            self.send_response(302)
            self.send_header("Location", asked["post_logout_redirect_uri"])
            self.end_headers()
        else:
            self._answer({"error": "invalid_request"}, 400)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        sent = {name: values[0] for name, values in parse_qs(body).items()}
        given = self.provider.token(sent, self.headers.get("Authorization", ""))
        self._answer({"error": "invalid_grant"} if given is None else given, 400 if given is None else 200)

    def _answer(self, content: dict[str, Any] | str, status: int = 200) -> None:
        kind, text = ("text/html", content) if isinstance(content, str) else ("application/json", json.dumps(content))
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: what a test expects of it, the test asserts."""


@contextmanager
def identity_provider(
    people: Mapping[str, Mapping[str, Any]], forged: frozenset[str] = frozenset()
) -> Iterator[Provider]:
    """Runs one on a free port of this machine."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.provider = Provider(f"http://127.0.0.1:{server.server_port}", people, forged)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield handler.provider
        server.shutdown()
        thread.join()
