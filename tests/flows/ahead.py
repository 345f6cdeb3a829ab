"""A store in which a curation came as far as is wanted, and what is looked ahead from there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.curation.lookup import look
from flows.curation.prepare import prepare
from flows.curation.records import draft_curation
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.planning.expected_pairs import Prospects
from flows.planning.plan import (
    Plan,
    plan_tiers,
)
from infra.settings import Settings
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest
from infra.storage.store import Store
from tests.flows.animals import make_setup, tier, write_source
from tests.flows.fakes import InProcess


class Stopping(InProcess):
    """Fails the named parts, so that what reads them is not computed."""

    stop: tuple[str, frozenset[int] | None] = ("", None)

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        stage, numbers = self.stop
        stopped = [s for s in specs if name == stage and (numbers is None or s.number in numbers)]
        others = [spec for spec in specs if spec not in stopped]
        return {**super().run_stage(name, others, finished), **{s.number: Failure("stopped") for s in stopped}}


class Place:
    """A store with a source, and what is looked ahead from there."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self.store = Store.open(str(folder / "store"))
        self.scratch = folder / "scratch"
        self.workspace = Workspace(Settings(folder / "home", self.store.url, folder / "cache", None, None), self.store)
        self.source = source or write_source(folder / "source")

    def setup(self, **changes: Any) -> Any:
        return make_setup(self.store, self.source, **{"treatments": ["default"], **changes})

    def run(self, stop: str = "", parts: frozenset[int] | None = None, **changes: Any) -> "Place":
        executor = Stopping(self.store, self.scratch)
        executor.stop = (stop, parts)
        curate_method(Runner(self.store, executor), self.setup(**changes))
        return self

    def ahead(self, **changes: Any) -> Prospects:
        setup = self.setup(**changes)
        return Prospects(self.workspace, setup, {run.name: run for run in look(self.store, setup)[1]})


def make_workspace(folder: Path, cache: Path) -> Workspace:
    store = str(folder / "store")
    settings = Settings(folder / "home", store, cache, prefect_api_url=None, ray_address=None)
    return Workspace(settings, Store.open(store))


def configure(source: Path, *tiers: dict[str, Any], **changes: Any) -> CurationConfig:
    engine = {"model": "tiny:llm", "max_model_len": 8192}
    config = {
        "name": "animals",
        "source": {"path": str(source)},
        "ingest": {"query_parts": 1, "known_split": "known"},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [{"engine": engine, **one} for one in tiers or (tier(),)],
        "treatments": ["default"],
        "train": None,
        "complete": {"max_unparsed": 1.0},
        **changes,
    }
    return parse_config(config, "test")


def make_plan(workspace: Workspace, config: CurationConfig) -> Plan:
    """Plan, and see to it that the store stays as it was."""
    setup = prepare(workspace, draft_curation(workspace, config))
    before = workspace.store.list("")
    plan = plan_tiers(workspace, setup, look(workspace.store, setup)[1])
    assert workspace.store.list("") == before
    return plan
