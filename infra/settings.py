"""The settings of a run. Only this module reads them from the environment."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from infra.key_rules import KEYS_VARIABLE, KeyRules

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SOURCES_VARIABLE = "RENEG_ALLOWED_SOURCES"
# Object stores, which ask for an account, and the folder that compose mounts; no other file of the worker, and no http.
DEFAULT_SOURCES = "s3://, gs://, gcs://, az://, abfs://, abfss://, /data"

# Every dependency's usage statistics and telemetry, off. Set before those libraries are imported.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the newer UI calls an analytics host from the browser whatever is set
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_LARGEST = 100_000


class SettingsError(Exception):
    """An environment variable holds what it cannot hold; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Paths and addresses of this run.

    home: the working folder of embedded mode (Prefect's database, logs, scratch).
    store: the artifact store, a path or `s3://bucket/prefix`.
    cache: the user's cache of models and of files laid out from the store.
    prefect_api_url, ray_address: servers to join; None means embedded ones, started and stopped by the run.
    """

    home: Path
    store: str
    cache: Path
    prefect_api_url: str | None
    ray_address: str | None

    @property
    def scratch(self) -> Path:
        """Where directory artifacts are laid out as files."""
        return self.cache / "files"


def read_settings() -> Settings:
    """Read the environment: RENEG_HOME, RENEG_STORE, RENEG_CACHE, PREFECT_API_URL, RAY_ADDRESS."""
    home = Path(os.environ.get("RENEG_HOME", ".reneg")).absolute()
    default_cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "reneg"
    return Settings(
        home=home,
        store=os.environ.get("RENEG_STORE", str(home / "store")),
        cache=Path(os.environ.get("RENEG_CACHE", default_cache)).expanduser().absolute(),
        prefect_api_url=os.environ.get("PREFECT_API_URL", "").strip().rstrip("/") or None,
        ray_address=os.environ.get("RAY_ADDRESS") or None,
    )


def autoscales() -> bool:
    """Tell whether the Ray cluster can grow (RENEG_AUTOSCALE=1); then the run waits for resources that it lacks now."""
    return os.environ.get("RENEG_AUTOSCALE", "") not in ("", "0")


def allowed_keys() -> KeyRules:
    """Read which keys a configuration from the store may use, and where they may be sent: RENEG_ALLOWED_KEYS.

    Raises:
        ValueError: the variable is of another form.
    """
    return KeyRules.parse(os.environ.get(KEYS_VARIABLE, ""))


def allowed_sources() -> tuple[str, ...]:
    """Read which places a configuration from a remote store may read: RENEG_ALLOWED_SOURCES, prefixes with commas."""
    text = os.environ.get(SOURCES_VARIABLE, "").strip() or DEFAULT_SOURCES
    return tuple(filter(None, (place.strip() for place in text.split(","))))


def max_node_gpus() -> float | None:
    """Return the GPUs of the largest node that the cluster can grow by (RENEG_MAX_NODE_GPUS); None where unknown.

    Raises:
        SettingsError: the variable holds no number.
    """
    said = os.environ.get("RENEG_MAX_NODE_GPUS", "")
    return _number("RENEG_MAX_NODE_GPUS", said) if said else None


def waiting_parts() -> int:
    """Return how many parts may wait in Ray so that an autoscaler sees them (RENEG_WAITING_PARTS); 0 without one.

    Raises:
        SettingsError: the variable holds no number.
    """
    return int(_number("RENEG_WAITING_PARTS", os.environ.get("RENEG_WAITING_PARTS") or "64")) if autoscales() else 0


def max_parts() -> int:
    """Return the most parts that one run has in flight (RENEG_MAX_PARTS), each on a thread of the driver.

    Raises:
        SettingsError: the variable holds no number.
    """
    return max(1, int(_number("RENEG_MAX_PARTS", os.environ.get("RENEG_MAX_PARTS") or "512")))


def _number(variable: str, said: str) -> float:
    try:
        number = float(said)
    except ValueError:
        number = -1.0
    if not 0 <= number < _LARGEST:
        raise SettingsError(f"{variable}: a number from 0 to {_LARGEST} expected, {said!r} came")
    return number


CODE_VARIABLE = "RENEG_CODE"  # set only by the driver, for the workers of its job


def expected_code() -> str | None:
    """Return the digest of the driver's code in a worker of a cluster; None where there is nothing to compare."""
    return os.environ.get(CODE_VARIABLE) or None


def silence_telemetry() -> None:
    """Turn every dependency's telemetry off, and flow runs' heartbeats on; call before importing any of them."""
    os.environ.update(QUIET)
    # In seconds. Without heartbeats the flow run of a machine that died never ends.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")


def bypass_proxies(environment: MutableMapping[str, str] | None = None) -> None:
    """Let connections to this machine bypass a proxy, in this process and in those that it starts.

    It adds the loopback addresses to `no_proxy` and `NO_PROXY`, of which some libraries read one and some the other.

    >>> variables = {"NO_PROXY": "intranet.example"}
    >>> bypass_proxies(variables)
    >>> variables["no_proxy"]
    'intranet.example,127.0.0.1,localhost,::1'
    """
    variables = os.environ if environment is None else environment
    known = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host.strip() for host in (variables.get(name) or known).split(",") if host.strip()]
        if "*" not in hosts:
            hosts += [host for host in LOOPBACK if host not in hosts]
        variables[name] = ",".join(hosts)
