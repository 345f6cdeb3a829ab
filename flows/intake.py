"""What an execution of a curation takes up when it begins: people's labels so far, the gold set, and which night it is.

It is recorded, so that looking at a finished curation shows what was made then, whatever came in since; the next
execution takes up the news.
"""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
from fsspec.core import url_to_fs

from flows.config import ConfigError, CurationConfig
from flows.gold import Gold
from infra.engines.specs import OpenAISpec
from infra.storage.artifacts import Directory
from infra.storage.errors import is_of_storage
from infra.storage.numbered_records import keep_next, read_newest
from infra.storage.store import Store
from tasks.quality.gold_set import GoldConfig, GoldError, read_gold
from tasks.quality.labels import newest, settle
from tasks.schemas import HUMAN

_READERS = 16


@dataclass(frozen=True)
class Intake:
    """What was taken up.

    labels: keys of the imports. gold: the gold set's files in the store. night: YYYY-MM-DD, where some judge is asked
    about the gold set anew every night.
    """

    labels: tuple[str, ...] = ()
    gold: Mapping[str, str] | None = None
    night: str = ""

    @classmethod
    def now(
        cls,
        store: Store,
        config: CurationConfig,
        now: datetime,
        known: "Intake | None" = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> "Intake":
        """Look at what there is; the gold set is kept in the store, and it is told which of its rows are left out.

        Raises:
            ConfigError: the gold set cannot be used.
        """
        if config.gold is None:
            return cls(tuple(label_keys(store)))
        endpoints = any(isinstance(tier.engine, OpenAISpec) for tier in config.tiers)
        gold = _keep_gold(store, config, None if known is None else known.gold, tell)
        return cls(tuple(label_keys(store)), gold, night_of(config, now) if endpoints else "")

    @classmethod
    def of(cls, store: Store, curation: str) -> "Intake":
        """Read what the newest execution of a curation took up; nothing where none has begun."""
        record = read_newest(store, f"curations/{curation}/intake")
        return cls() if record is None else cls(tuple(record["labels"]), record["gold"], record["night"])

    def keep(self, store: Store, curation: str) -> None:
        """Record it, if it differs from the newest record."""
        if self != Intake.of(store, curation):
            keep_next(store, f"curations/{curation}/intake", asdict(self))

    def settled(self, store: Store) -> pl.DataFrame | None:
        """Settle the labels that were taken up; None where there are none."""
        return settle(read_labels(store, self.labels)) if self.labels else None

    def gold_set(self) -> Gold | None:
        """Return the gold set with its night."""
        return None if self.gold is None else Gold(Directory("gold", self.gold), self.night)


def night_of(config: CurationConfig, now: datetime) -> str:
    """Name the night that begins at a time: its date in the schedule's time zone, or in UTC."""
    zone = ZoneInfo(config.nightly.timezone if config.nightly else "UTC")
    return now.astimezone(zone).date().isoformat()


def label_keys(store: Store) -> list[str]:
    """List the imports of people's labels."""
    return [key for key in store.list("labels") if key.endswith(".parquet")]


def read_labels(store: Store, keys: Sequence[str] | None = None) -> pl.DataFrame:
    """Read imports of people's labels, all by default; one that was purged meanwhile is passed over."""
    with ThreadPoolExecutor(_READERS, "labels") as pool:
        found = list(pool.map(store.read, label_keys(store) if keys is None else keys))
    frames = [pl.read_parquet(io.BytesIO(data)).select(*HUMAN.columns) for data in found if data is not None]
    return newest(pl.concat([HUMAN.empty(), *frames]))


def _keep_gold(
    store: Store, config: CurationConfig, known: Mapping[str, str] | None, tell: Callable[[str], None]
) -> Mapping[str, str]:
    """Copy the gold set into the store; where the file is out of reach, the copy taken up before serves."""
    path = config.gold.path if config.gold else ""
    try:
        fs, root = url_to_fs(path)
        data: bytes = fs.cat_file(root)
    except Exception as error:
        if not is_of_storage(error) and not isinstance(error, ValueError | ImportError):
            raise
        if known is not None:
            tell(f"gold.path: {path} cannot be read here; the copy that was taken up before serves")
            return known
        raise ConfigError(f"gold.path: {path} cannot be read ({type(error).__name__}: {error})") from error
    check_gold(data, config, tell)
    return {Path(root).name: store.put_object(data, "")}


def check_gold(data: bytes, config: CurationConfig, tell: Callable[[str], None] = lambda text: None) -> int:
    """Read a gold set as the stage will; tells how many rows are left out and why, and returns how many can be used.

    Raises:
        ConfigError: none can.
    """
    with tempfile.TemporaryDirectory(prefix="reneg-gold-") as folder:
        (Path(folder) / "gold.jsonl").write_bytes(data)
        try:
            made = read_gold(GoldConfig(dataset=config.ingest.dataset), source=Path(folder))
        except GoldError as error:
            raise ConfigError(f"{config.gold.path if config.gold else 'gold'}: {error}") from error
    for reason, rows in made["rejects"].group_by("reason").len().sort("reason").iter_rows():
        tell(f"gold: {rows} row(s) left out: {reason}")
    return made["gold"].height
