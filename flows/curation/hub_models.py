"""The commits of models whose references name none: each is asked of the hub once, and recorded in the store.

`hub:owner/name` stands for the newest commit when the store first met it. Later runs, nights and other configurations
take the recorded one, so that nothing changes because somebody pushed to the hub. A curation's record holds the commit.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel

from flows.config.curation import CurationConfig
from flows.curation.workspace import Workspace
from infra.engines.kinds import kind_of
from infra.models.hub import newest_commit
from infra.models.resolve import without_commit
from infra.storage.store import Store

_Engine = TypeVar("_Engine", bound=BaseModel)


def pin_models(workspace: Workspace, config: CurationConfig) -> CurationConfig:
    """Return the configuration with the commits of its models; one that is not recorded yet is asked of the hub.

    Raises:
        ModelError: the hub does not answer; the message names the form with a commit.
    """
    pinned: dict[str, Any] = {}
    encoder = _pinned(workspace, config.encoder)
    if encoder != config.encoder:
        pinned["encoder"] = encoder
    further = {name: _pinned(workspace, wanted) for name, wanted in config.encoders.items()}
    if further != config.encoders:
        pinned["encoders"] = further
    tiers = []
    for tier in config.tiers:
        engine = _pinned(workspace, tier.engine)
        tiers.append(tier if engine == tier.engine else tier.model_copy(update={"engine": engine}))
    if config.rescore is not None:
        pinned["rescore"] = config.rescore.model_copy(update={"engine": _pinned(workspace, config.rescore.engine)})
    if config.reranker is not None:
        pinned["reranker"] = _pinned(workspace, config.reranker)
    if config.train_reranker is not None:
        pinned["train_reranker"] = config.train_reranker.model_copy(
            update={"model": _pin(workspace, config.train_reranker.model)}
        )
    return config.model_copy(update={**pinned, "tiers": tuple(tiers)})


def recorded_commit(store: Store, repository: str) -> str | None:
    """Return the commit that this store has recorded for a model; None for one that it has not met yet."""
    record = store.read_json(_key(repository))
    return None if record is None else str(record["commit"])


def _pinned(workspace: Workspace, engine: _Engine) -> _Engine:
    """Return an engine's settings with the commit of its model, if it has weights."""
    model = str(getattr(engine, "model", "")) if kind_of(engine).has_weights else ""
    found = _pin(workspace, model) if model else ""
    return engine if found == model else engine.model_copy(update={"model": found})


def _pin(workspace: Workspace, reference: str) -> str:
    repository = without_commit(reference)
    if repository is None:
        return reference
    store = workspace.store
    commit = recorded_commit(store, repository)
    if commit is None:
        asked = {"repository": repository, "commit": newest_commit(repository), "at": workspace.clock().isoformat()}
        store.create(_key(repository), json.dumps(asked).encode())  # of two processes, the first one's commit counts
        commit = recorded_commit(store, repository) or asked["commit"]
        workspace.hooks.on_message(f"{reference}: commit {commit}, the newest one; recorded, and used from now on")
    return f"{reference}@{commit}"


def _key(repository: str) -> str:
    return f"hub/{repository.replace('/', '--')}.json"
