"""Where a key may be sent: the rules for an endpoint's address and for the fields of a request.

A configuration from the store was written by somebody who need not own this machine. It may use only those variables of
the environment that RENEG_ALLOWED_KEYS names, each with the hosts to which its value may be sent.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from infra.token_patterns import hide_tokens

KEYS_VARIABLE = "RENEG_ALLOWED_KEYS"
DEFAULT_KEYS = "OPENAI_API_KEY@api.openai.com"
NO_KEYS = "none"
_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(
    r"([A-Za-z_][A-Za-z0-9_]*)@(?:(https?)://)?(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(?::([0-9]{1,5}|\*))?/?"
)
# Names of fields that hold a credential, in lower case without dashes, dots and underscores.
_CREDENTIALS = frozenset(
    "authorization proxyauthorization auth token accesstoken authtoken xauthtoken sessiontoken refreshtoken idtoken "
    "hftoken bearer bearertoken pass passphrase passwd pwd credential credentials cookie accesskey secretkey "
    "secretaccesskey subscriptionkey ocpapimsubscriptionkey privatekey".split()
)
_CREDENTIAL_ENDS = ("apikey", "password", "secret")  # `openai_api_key`, `client_secret`


@dataclass(frozen=True)
class _Entry:
    """One variable, and a host to which its value may be sent. scheme, port: empty for the usual ones."""

    variable: str
    scheme: str
    host: str
    port: str

    def allows(self, variable: str, address: str) -> bool:
        scheme, host, port = _split(address)
        schemes = (self.scheme,) if self.scheme else ("https", "http") if is_loopback(address) else ("https",)
        if variable != self.variable or scheme not in schemes or port is None:
            return False
        if self.port != "*" and port != int(self.port or _PORTS[scheme]):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host


@dataclass(frozen=True)
class KeyRules:
    """The variables of the environment that a configuration from the store may use, and the hosts of each."""

    entries: tuple[_Entry, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `VARIABLE@HOST, VARIABLE@http://HOST:PORT, …`; empty for the default, `none` for no variable at all.

        A host may begin with `*.`; a port may be `*`. Without a scheme, HTTPS is meant, and on loopback HTTP too.

        >>> rules = KeyRules.parse("GPU_KEY@http://gpu.example:8000")
        >>> rules.refusal("GPU_KEY", "http://gpu.example:8000/v1"), bool(rules.refusal("GPU_KEY", "https://gpu.example"))
        ('', True)

        Raises:
            ValueError: an entry is of another form. The message does not repeat it, because it may hold a key.
        """
        entries = []
        listed = [one for one in re.split(r"[,\s]+", text.strip() or DEFAULT_KEYS) if one]
        for number, written in enumerate(listed, start=1):
            if written == NO_KEYS:
                continue
            found = _ENTRY.fullmatch(written)
            if found is None:
                raise ValueError(
                    f"{KEYS_VARIABLE}: VARIABLE@HOST expected, such as {DEFAULT_KEYS} or "
                    f"GPU_KEY@http://gpu.example:8000; entry {number} is something else"
                )
            variable, scheme, host, port = found.groups()
            entries.append(_Entry(variable, scheme or "", host.lower().strip("[]"), port or ""))
        # Without the blanks, `A@http://host:8000,B@…` would be taken for an address with a password and be hidden.
        return cls(tuple(entries), ", ".join(listed))

    def refusal(self, variable: str, address: str) -> str:
        """Say why the value of a variable may not be sent to an address; empty if it may."""
        if any(entry.allows(variable, address) for entry in self.entries):
            return ""
        wanted = f"{variable}@{origin(address)}"
        return (
            f"a configuration from the store may not send {variable} to {origin(address)}; allowed here: {self.text}. "
            f"Add {wanted} to {KEYS_VARIABLE} in the environment of this process (for a deployment: of `reneg serve`), "
            "or run `reneg curate` with a file of your own"
        )


def origin(address: str) -> str:
    """Return the part of an address that says where it leads, as an entry of RENEG_ALLOWED_KEYS has it.

    >>> origin("https://api.openai.com/v1"), origin("http://gpu.example:8000/v1")
    ('api.openai.com', 'http://gpu.example:8000')
    """
    scheme, host, port = _split(address)
    host = f"[{host}]" if ":" in host else host or "?"
    place = host if port == _PORTS.get(scheme) else f"{host}:{port or '?'}"
    return place if scheme == "https" else f"{scheme or '?'}://{place}"


def _split(address: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address; no port where it has none that is known, or a wrong one."""
    try:
        parts = urlsplit(address)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # brackets that do not close, a port above 65535
        return address.partition("://")[0], "", None


def is_loopback(address: str) -> bool:
    """Tell whether an address leads to this machine itself."""
    host = _split(address)[1]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plain_http_refusal(address: str, *, allowed: bool) -> str:
    """Say why a key may not be sent to an address without encryption; empty if it may."""
    if allowed or _split(address)[0] != "http" or is_loopback(address):
        return ""
    return (
        f"base_url: {origin(address)} would get the key and the texts unencrypted; use https://, or set "
        "`allow_plain_http: true` beside base_url if the network is private"
    )


def _is_credential(name: str) -> bool:
    letters = re.sub(r"[-_. ]", "", name.lower())
    return letters in _CREDENTIALS or letters.endswith(_CREDENTIAL_ENDS)


def credential_in(value: Any, path: str = "") -> str:  # noqa: ANN401 - any JSON
    """Name the first field of a JSON value that holds a credential, by its name or its form; empty if none does.

    >>> credential_in({"user": "me", "headers": {"X-Api-Key": "abc"}}), credential_in({"max_tokens": 5})
    ('headers.X-Api-Key', '')
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            inside = f"{path}.{name}" if path else str(name)
            if _is_credential(str(name)) and isinstance(inner, str | Mapping | list):
                return inside
            if found := credential_in(inner, inside):
                return found
        return ""
    if isinstance(value, list | tuple):
        return next((found for i, one in enumerate(value) if (found := credential_in(one, f"{path}.{i}"))), "")
    return (path or "its text") if isinstance(value, str) and hide_tokens(value) != value else ""
