"""The settings of a run. Only this module reads them from the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

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
        prefect_api_url=os.environ.get("PREFECT_API_URL") or None,
        ray_address=os.environ.get("RAY_ADDRESS") or None,
    )


def autoscales() -> bool:
    """Tell whether the Ray cluster can grow (RENEG_AUTOSCALE=1); then the run waits for resources that it lacks now."""
    return os.environ.get("RENEG_AUTOSCALE", "") not in ("", "0")


CODE_VARIABLE = "RENEG_CODE"  # set only by the driver, for the workers of its job


def expected_code() -> str | None:
    """Return the digest of the driver's code in a worker of a cluster; None where there is nothing to compare."""
    return os.environ.get(CODE_VARIABLE) or None


def silence_telemetry() -> None:
    """Turn every dependency's telemetry off, and flow runs' heartbeats on; call before importing any of them."""
    os.environ.update(QUIET)
    # In seconds. Without heartbeats the flow run of a machine that died never ends.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
