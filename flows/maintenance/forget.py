"""Forgets answers of a judge, such as those of a night in which it answered garbage, so that it is asked anew.

The rows leave the ledger, and the finished judging parts that used them are computed again by the next `reneg curate`.
Both are kept aside for the grace period of `reneg gc`.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from flows.curation.records import curation_names, results_of
from flows.stages import JUDGE, RESCORE
from infra.ledger.forgetting import begin, forgotten, put_back, scan, take_parts, take_rows
from infra.ledger.ledger import Ledger
from infra.settings import Settings
from infra.storage.artifacts import Manifest, Table, read_table
from infra.storage.numbered_records import padded
from infra.storage.store import Store
from tasks.schemas import CALLS
from tasks.texts import combine_hashes

_READERS = 16
_NO_FINGERPRINT = "none"


@dataclass(frozen=True)
class Wanted:
    """Which answers to forget.

    judge: as the report and verdicts name it, the part before the slash, the model's name, or the ledger's name.
    since: only what was answered from then on. fingerprint: only answers with this `system_fingerprint`.
    """

    judge: str
    since: datetime | None = None
    fingerprint: str | None = None


@dataclass
class Found:
    """What is, or would be, forgotten.

    folders: the ledger's names of the judge, with those of the gold set's nights. rows: answers. undated: answers that
    are kept because it is not known when they were given. fingerprints: answers by it. first, last: seconds since the
    epoch. parts: keys of the finished parts that used one. curations: those whose last result lists such a part.
    """

    folders: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    undated: int = 0
    fingerprints: Counter[str] = field(default_factory=Counter)
    first: int = 0
    last: int = 0
    parts: list[str] = field(default_factory=list)
    curations: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads."""
        return {**self.__dict__, "fingerprints": dict(self.fingerprints.most_common())}


def forget(settings: Settings, wanted: Wanted, *, yes: bool) -> dict[str, Any]:
    """Find the answers; with `yes`, take them and the parts that used them away.

    Returns:
        What was, or would be, forgotten (`Found`), and with `yes` the `number` that `undo` takes.

    Raises:
        ConfigError: no such judge, or several.
    """
    store = Store.open(settings.store, write=yes)
    manifests = _judging_parts(store)
    found = Found(folders=_folders(store, wanted.judge, manifests))
    entries = _count(store, wanted, found)
    found.parts = sorted(key for key, manifest in manifests.items() if _used(store, manifest, found.folders, entries))
    used = set(found.parts)
    newest = {name: results_of(store, name)[-1:] for name in curation_names(store)}
    found.curations = [name for name, last in newest.items() if last and used & set(last[0].get("manifests") or ())]
    facts = {"removed": yes, "judge": wanted.judge, **found.as_json()}
    if not yes or not found.rows:
        return facts
    since = None if wanted.since is None else wanted.since.isoformat()
    asked = {"judge": wanted.judge, "since": since, "fingerprint": wanted.fingerprint}
    number = begin(store, {**asked, "folders": sorted(found.folders), "rows": found.rows, "parts": len(found.parts)})
    take_parts(store, number, found.parts)  # first: without the rows they could not be found any more
    for folder in found.folders:
        take_rows(store, number, folder, lambda rows: rows.select(_chosen(wanted)).to_series())
    return facts | {"number": padded(number)}


def undo(settings: Settings, number: int, *, yes: bool) -> dict[str, Any]:
    """Say what a forgetting took away; with `yes`, put it back.

    Raises:
        ConfigError: there was no such forgetting, or what it took away is gone for good.
    """
    store = Store.open(settings.store, write=yes)
    known = forgotten(store)
    record = known.get(number)
    if record is None or not record["kept"]:
        there = ", ".join(padded(n) for n, one in known.items() if one["kept"]) or "none"
        why = "deleted by `reneg gc`, or undone already" if record else "never forgotten"
        raise ConfigError(f"--undo {number}: {why}; these can be undone: {there}")
    return {"undone": yes, "number": padded(number), **record, **(put_back(store, number) if yes else {})}


def _judging_parts(store: Store) -> dict[str, Manifest]:
    """Read the manifests of all parts that asked a judge or a reranker, every attempt of each, by key."""
    keys = [key for stage in (JUDGE, RESCORE) for key in store.list(f"parts/{stage.name}")]
    with ThreadPoolExecutor(_READERS, "forget") as pool:
        found = zip(keys, pool.map(store.read, keys), strict=True)
        return {key: Manifest.from_json(data) for key, data in found if data is not None}


def _name_of(manifest: Manifest) -> str:
    """Return the name of model and settings under which a part's answers are remembered (`JudgeConfig.asked`)."""
    config = manifest.ingredients["config"]
    return str(config.get("engine") or config.get("judge"))


def _folders(store: Store, judge: str, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return the ledger's names of a judge, with its name in the report where a part tells it."""
    known = {combine_hashes([name]): name for name in sorted({_name_of(manifest) for manifest in manifests.values()})}
    held = Ledger(store).judges()
    names = {folder: known.get(folder, "") for folder in held}
    asked = judge.rpartition("/")[0] or judge
    exact = {folder for folder, name in names.items() if folder == judge or name.partition("@")[0] in (judge, asked)}
    exact |= {folder for folder in held if folder in (combine_hashes([judge]), combine_hashes([asked]))}
    found = exact or {folder for folder, name in names.items() if name.rpartition(":")[0] == judge}
    listed = ", ".join(sorted({name.partition("@")[0] or folder for folder, name in names.items()})) or "none"
    if not found:
        raise ConfigError(f"--judge {judge!r}: the ledger of {store.url} has no answers of it; known: {listed}")
    several = {names[folder].partition("@")[0] for folder in found}
    if len(several) > 1:
        raise ConfigError(f"--judge {judge!r} means several judges: {', '.join(sorted(several))}; give one of them")
    return {folder: names[folder] for folder in sorted(found)}


def _chosen(wanted: Wanted) -> pl.Expr:
    """Tell which rows of the ledger are meant."""
    chosen = pl.col("entry").is_not_null()
    if wanted.since is not None:
        chosen &= pl.col("at") >= int(wanted.since.timestamp())
    if wanted.fingerprint is not None:
        chosen &= _fingerprint() == wanted.fingerprint
    return chosen


def _fingerprint() -> pl.Expr:
    said = pl.col("payload").str.json_path_match("$.fingerprint").fill_null("")
    return pl.when(said == "").then(pl.lit(_NO_FINGERPRINT)).otherwise(said)


def _count(store: Store, wanted: Wanted, found: Found) -> pl.DataFrame:
    """Count the rows that are meant; returns their entries."""
    entries = [pl.DataFrame(schema={"call_id": pl.String})]
    times: list[int] = []
    for folder in found.folders:
        for rows in scan(store, folder):
            chosen = rows.filter(_chosen(wanted))
            found.rows += chosen.height
            if wanted.since is not None:
                whenever = _chosen(replace(wanted, since=None))
                found.undated += rows.filter(whenever & (pl.col("at") == 0)).height
            found.fingerprints.update(dict(chosen.group_by(_fingerprint().alias("f")).len().iter_rows()))
            times += [int(at) for at in chosen.select(pl.col("at").filter(pl.col("at") > 0)).to_series()]
            entries.append(chosen.select(call_id="entry"))
    found.first, found.last = min(times, default=0), max(times, default=0)
    return pl.concat(entries).unique()


def _used(store: Store, manifest: Manifest, folders: Mapping[str, str], entries: pl.DataFrame) -> bool:
    """Tell whether a part used one of the answers."""
    if combine_hashes([_name_of(manifest)]) not in folders or entries.is_empty():
        return False
    calls = read_table(store, Table("calls", manifest.tables["calls"]), CALLS)
    return not calls.join(entries, on="call_id", how="semi").is_empty()
