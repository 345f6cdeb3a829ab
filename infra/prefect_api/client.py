"""Points Prefect's client at a server, with what that server asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Settings for a server of the user's, which Prefect takes from the environment, from `.env`, `prefect.toml` and
# `pyproject.toml` of the current folder, and from the user's profile.
_OF_ANOTHER_SERVER: dict[str, Any] = {
    "api.key": None,
    "api.tls_insecure_skip_verify": False,
    "api.ssl_cert_file": None,
    "api.enable_http2": False,
    "client.csrf_support_enabled": True,
    "cloud.api_url": "https://api.prefect.cloud/api",
    "ui_url": None,
}


@dataclass(frozen=True)
class Api:
    """The API of a Prefect server.

    url: with `/api` at its end.
    auth_string: the `user:password` of an embedded server; None for a server of the user's, with whom Prefect's own
        settings (PREFECT_API_AUTH_STRING, PREFECT_API_KEY, …) say how to identify.
    """

    url: str
    auth_string: str | None = field(default=None, repr=False)


@contextmanager
def connected(api: Api) -> Iterator[None]:
    """Point Prefect's client and its background threads at a server for a while."""
    from prefect.settings import temporary_settings

    settings: dict[Any, Any] = {"api.url": api.url}
    if api.auth_string is not None:
        settings |= _OF_ANOTHER_SERVER | {"api.auth_string": api.auth_string}
    with temporary_settings(settings):
        yield


def client_environment(api: Api) -> dict[str, str]:
    """Return the variables that point Prefect's client in another process at a server."""
    if api.auth_string is None:
        return {"PREFECT_API_URL": api.url}
    return {
        "PREFECT_API_URL": api.url,
        "PREFECT_API_AUTH_STRING": api.auth_string,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }
