"""Tells whether a Prefect server answers at an address, and what to do where it does not."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.settings import LOOPBACK

_SHOWN = 60  # characters of an answer
_SERVER_FAULT = 500
_REFUSED = (401, 403)


class ServerError(Exception):
    """A Prefect server did not start or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Trouble:
    """Why a server cannot be used. passes: it may pass without a change of the settings."""

    found: str
    remedy: str
    passes: bool = False


def is_healthy(api_url: str, timeout: float = 2.0) -> bool:
    """Ask a Prefect server whether it answers; one on this machine is never asked through a proxy."""
    proxies: dict[str, str] | None = {} if urlsplit(api_url).hostname in LOOPBACK else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(f"{api_url}/health", timeout=timeout) as reply:
            return _is_true(reply.read(_SHOWN))
    except (urllib.error.URLError, OSError, ValueError):
        return False


def check_named(address: str) -> None:
    """Check the server that PREFECT_API_URL names.

    Raises:
        ServerError: it cannot be used; the message says why, and what to do.
    """
    trouble = trouble_with(address)
    if trouble is not None:
        raise ServerError(f"PREFECT_API_URL: {trouble.found}; {trouble.remedy}")


def trouble_with(address: str, timeout: float = 10.0) -> Trouble | None:
    """Ask a server of the user's, as Prefect's client does, for its health and its version.

    Returns:
        Why it cannot be used, or None.
    """
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        return Trouble(f"{address} is no web address", "set it to http://HOST:4200/api")
    status, body = _get(address, "/health", timeout)
    if status is None or status >= _SERVER_FAULT:
        found = f"{address} does not answer ({body if status is None else f'status {status}'})"
        return Trouble(found, "start that server, or unset it to use an embedded one", passes=True)
    if status in _REFUSED:
        return _refused(address, status)
    if not _is_true(body.encode()):
        return _other_server(address, status, body, timeout)
    status, _ = _get(address, "/admin/version", timeout)
    return _refused(address, status) if status in _REFUSED else None


def _get(address: str, path: Any, timeout: float) -> tuple[int | None, str]:  # noqa: ANN401 - Prefect lists its paths
    """Return the status and the text of a reply; where there is none, None and the reason."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import temporary_settings

    once: Any = {"api.url": address, "client.max_retries": 0}
    with temporary_settings(once), get_client(sync_client=True, httpx_settings={"timeout": timeout}) as client:
        try:
            reply = client.request("GET", path)
        except PrefectHTTPStatusError as error:
            reply = error.response
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return None, f"{type(error).__name__}: {error}"
        return reply.status_code, reply.text


def _refused(address: str, status: int) -> Trouble:
    remedy = "set PREFECT_API_AUTH_STRING to its user:password (or PREFECT_API_KEY to a key, for Prefect Cloud)"
    return Trouble(f"{address} refuses this client (status {status}): no or a wrong password", remedy)


def _other_server(address: str, status: int, body: str, timeout: float) -> Trouble:
    told = " ".join(body.split())[:_SHOWN]
    found = f"{address} is not the API of a Prefect server ({address}/health gave status {status} and {told!r})"
    if not address.endswith("/api") and _is_true(_get(f"{address}/api", "/health", timeout)[1].encode()):
        return Trouble(found, f"its API is at {address}/api: set PREFECT_API_URL to that")
    return Trouble(found, "set PREFECT_API_URL to http://HOST:4200/api of a Prefect server, or unset it")


def _is_true(body: bytes) -> bool:
    try:
        return json.loads(body) is True
    except ValueError:
        return False
