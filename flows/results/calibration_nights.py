"""Compares the calibration of a curation with the labels that its pairs have by now, for the record of a night."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl

from flows import stages as st
from flows.method.judging import combine_label
from flows.method.setup import Setup
from flows.method.tables import Finished
from infra.names import StageName
from infra.stages.runner import StageRun
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tasks.quality.calibration_drift import Observed, find_miscalibration, observe
from tasks.quality.drift import Alarm, DriftConfig
from tasks.verdicts.calibration import PEOPLE

_PAIR = ["dataset", "query_id", "doc_id"]
_TEXTS = ["query_hash", "text_hash"]
_SURE = ("relevant", "not_relevant")


def observe_calibration(store: Store, setup: Setup, runs: Mapping[str, StageRun]) -> dict[str, Any] | None:
    """Compare P(relevant) with labels; None without a calibration that decides.

    A calibration on labels of people is compared with people's labels and P after all tiers. One on the verdicts of a
    tier is compared with this tier's verdicts of tonight and P after the tiers before it.

    Returns:
        `digest` of the calibration, `labels_from`, and `bins`: the fields of `Observed`.
    """
    if setup.decided_by is None:
        return None
    made = setup.decided_by.calibration
    source = made.origin.labels_from
    number = setup.tier_names.index(source) if source in setup.tier_names else len(setup.tiers)
    done = Finished(runs)
    p = done.table("combined", str(StageName(st.COMBINE.name, combine_label(setup, number))))
    features = read_table(store, done.table("features", st.JUDGE_SIMILARITY.name)).select(*_PAIR, *_TEXTS)
    labels = _of_people(setup, features) if source == PEOPLE else _of_tier(store, done, setup, number)
    pairs = labels.join(read_table(store, p).select(*_PAIR, p="score"), on=_PAIR).join(features, on=_PAIR)
    return {"digest": made.digest, "labels_from": source, "bins": [asdict(one) for one in observe(pairs)]}


def alarms_of(config: DriftConfig, observed: Mapping[str, Any] | None) -> list[Alarm]:
    """Return the alarms about what `observe_calibration` found."""
    if observed is None:
        return []
    bins = [Observed(**one) for one in observed["bins"]]
    source = observed["labels_from"]
    return find_miscalibration(config, bins, source if source == PEOPLE else f"the tier {source}")


def _of_people(setup: Setup, features: pl.DataFrame) -> pl.DataFrame:
    schema = dict.fromkeys([*_TEXTS, "label"], pl.String)
    labels = pl.DataFrame(schema=schema) if setup.labels is None else setup.labels.select(*_TEXTS, "label")
    found = features.join(labels.filter(pl.col("label").is_in(_SURE)), on=_TEXTS)
    return found.select(*_PAIR, relevant=pl.col("label") == "relevant")


def _of_tier(store: Store, done: Finished, setup: Setup, number: int) -> pl.DataFrame:
    if number == len(setup.tiers):  # the tier is no longer asked
        return pl.DataFrame(schema={**dict.fromkeys(_PAIR, pl.String), "relevant": pl.Boolean})
    said = read_table(store, done.table("verdicts", setup.tiers[number].stage))
    return said.filter(pl.col("state").is_in(_SURE)).select(*_PAIR, relevant=pl.col("state") == "relevant")
