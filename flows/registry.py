"""Deployed configurations, kept in the store: a worker on another machine reads them there, not from a file."""

import json
from typing import Any

from flows.config import ConfigError, CurationConfig, parse_config
from infra.storage.store import Store


def keep_config(store: Store, config: CurationConfig) -> str:
    """Put a configuration into the store, as the newest of its name; returns its key. The same one is kept once."""
    settings = config.model_dump(mode="json")
    while True:
        known = _keys(store, config.name)
        if known and store.read_json(known[-1]) == settings:
            return known[-1]
        key = f"configs/{config.name}/{_number(known[-1]) + 1 if known else 1:06d}.json"
        if store.create(key, json.dumps(settings, indent=1).encode()):
            return key


def read_config(store: Store, name: str) -> CurationConfig:
    """Read the newest configuration of a name.

    Raises:
        ConfigError: none was deployed, or this version cannot read it.
    """
    known = _keys(store, name)
    if not known:
        names = sorted({key.split("/")[1] for key in store.list("configs")})
        listed = f"deployed here: {', '.join(names)}" if names else "none is deployed here"
        raise ConfigError(f"no configuration {name!r} in {store.url}; {listed}. Run `reneg deploy CONFIG.yaml`")
    data: dict[str, Any] = store.read_json(known[-1])
    return parse_config(data, known[-1])


def _keys(store: Store, name: str) -> list[str]:
    return store.list(f"configs/{name}")


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))
