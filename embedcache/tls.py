"""TLS settings that cannot work, found before the first call; and what an error of TLS means, in words that help."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import redis

from embedcache.errors import InvalidInputError

_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

# What OpenSSL calls it, and what to do. The first that fits.
_ADVICE: Final = (
    ("mismatch, certificate is not valid for", "its certificate is another host's: use the name that it was made for"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by a CA that we know: name the file of its CA in"
     " ssl_ca_certs"),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate: name one in ssl_certfile and ssl_keyfile"),
    ("ALERT_HANDSHAKE_FAILURE", "it wants a client certificate: name one in ssl_certfile and ssl_keyfile"),
    ("ALERT_UNKNOWN_CA", "it does not know the CA that signed our client certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "our client certificate has expired"),
    ("Timeout connecting", "does it speak TLS at this port?"),  # one that does not waits for the rest of a command
    ("WRONG_VERSION_NUMBER", "it does not speak TLS there: use redis://, or the port at which it does"),
)  # fmt: skip
_ENDED: Final = ("closed", "reset by peer", "Broken pipe", "EOF")


def check_files(settings: Mapping[str, Any]) -> None:
    """Finds a file that is not there, or that does not fit the others, before the first call.

    Raises:
        InvalidInputError: There is one. The message names it, and no password.
    """
    for name in _FILES:
        path = settings.get(name)
        if path is not None and not _is_there(path):
            raise InvalidInputError(f"{name} names {str(path)!r}, which is not there or cannot be read")
    certificate, key = settings.get("ssl_certfile"), settings.get("ssl_keyfile")
    if certificate is None and key is None:
        return
    if certificate is None:
        raise InvalidInputError("ssl_keyfile is of no use without the certificate, ssl_certfile")
    password = settings.get("ssl_password") or ""
    try:
        # The password as a function: for want of one, OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM file, or a key under another password"
        raise InvalidInputError(
            f"ssl_certfile {str(certificate)!r} and ssl_keyfile {str(key or certificate)!r} are no certificate with its"
            f" key: {reason}"
        ) from None


def _is_there(path: str | Path) -> bool:
    try:
        return os.access(path, os.R_OK)
    except (TypeError, ValueError):
        return False


def words(error: BaseException, settings: Mapping[str, Any]) -> str:
    """What an error of a connection says, with advice where it is one of TLS."""
    told = str(error) or type(error).__name__
    return told + advice(told, settings)


def advice(error: str, settings: Mapping[str, Any]) -> str:
    """What to do about an error, to be appended to it; empty where it is not of TLS."""
    if not issubclass(settings.get("connection_class", redis.Connection), redis.SSLConnection):
        return ""
    for sign, words in _ADVICE:
        if sign in error:
            return f" ({words})"
    if "ssl_certfile" not in settings and any(sign in error for sign in _ENDED):
        # From TLS 1.3 on we may write before the server has looked for a certificate, and its alert may be lost.
        return " (does it want a client certificate? ssl_certfile and ssl_keyfile name one)"
    return ""
