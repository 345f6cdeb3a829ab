"""Measures a night from the manifests and tables of a finished curation. Nothing is decided here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.curation import CurationConfig
from flows.config.prices import encoding_endpoints, load_prices
from flows.method.setup import Setup
from flows.stage_names import is_of_gold, is_of_held_out, tier_of
from infra.execution.usage_meter import Usage
from infra.names import ManifestName, StageName, object_key
from infra.stages import part_keys
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest, Piece, Table, read_manifest, read_table
from infra.storage.store import Store
from tasks.quality.drift import CASCADE, design_effect
from tasks.quality.imported import IMPORTED

_PAIR = ["dataset", "query_id", "doc_id"]
_TEXTS = ["query_hash", "text_hash"]
# Sections of the settings that decide which pairs are judged, and how.
_DECIDING = {"encoder", "tiers"} | {stage.settings for stage in st.STAGES if stage.decides_labels}
_COUNTS = ("calls", "recalled", "prompt_tokens", "cached_tokens", "output_tokens")

States = dict[str, int]


@dataclass(frozen=True)
class Mixes:
    """Verdicts by tier and state, over all pairs and over those that no earlier night had judged.

    new: with the number of queries and the design effect; None if the earlier night's tables are gone.
    """

    every: Mapping[str, States]
    new: Mapping[str, Mapping[str, Any]] | None


def part_names(runs: Iterable[StageRun]) -> list[str]:
    """Return the names of finished parts' manifests, sorted."""
    return sorted({str(m.name) for run in runs for m in run.manifests})


def answer_keys(runs: Sequence[StageRun]) -> list[str]:
    """Return the keys of the parts that hold judges' answers about the candidates, sorted.

    Those about the gold set and about held-out queries decide no label of a training set.
    """
    asked = (run for run in judging(runs) if not is_of_gold(run.name) and not is_of_held_out(run.name))
    return sorted({m.key for run in asked for m in run.manifests})


def judging(runs: Sequence[StageRun]) -> list[StageRun]:
    """Return the stages that asked a judge, those of the gold set included."""
    return [run for run in runs if StageName.parse(run.name).stage == st.JUDGE.name]


def cost(config: CurationConfig, runs: Sequence[StageRun], known: frozenset[str]) -> dict[str, Any]:
    """Sum up the cost of judging, of rescoring, and of encoding by endpoints, in parts that no earlier night has.

    gold_calls: how many of the calls were about the gold set. money: only if every engine has a price.
    """
    total: dict[str, Any] = dict.fromkeys((*_COUNTS, "gold_calls"), 0) | {"engine_seconds": 0.0}
    prices, money, unpriced = load_prices(config), [], []
    tiers = {tier.name: tier.engine for tier in config.tiers}
    engines: dict[str, Any] = {run.name: tiers[tier_of(run.name)] for run in judging(runs)}
    engines |= encoding_endpoints(config)
    if config.rescore is not None:
        engines[st.RESCORE.name] = config.rescore.engine
    for run in (run for run in runs if run.name in engines):
        facts = [m.stats.get("facts", {}) for m in run.manifests if str(m.name) not in known]
        counts = {name: sum(int(fact.get(name, 0)) for fact in facts) for name in _COUNTS}
        seconds = math.fsum(float(fact.get("engine_seconds", 0.0)) for fact in facts)
        total |= {name: total[name] + counts[name] for name in _COUNTS}
        total["engine_seconds"] += seconds
        total["gold_calls"] += counts["calls"] if is_of_gold(run.name) else 0
        price = prices.of(engines[run.name])
        if price is None:
            unpriced.append(run.name)
        else:
            usage = {name: counts[name] for name in _COUNTS if name != "recalled"}
            money.append(price.of(Usage(**usage, seconds=seconds)))
    total["engine_seconds"] = round(total["engine_seconds"], 1)
    return total | {
        "money": None if unpriced and total["calls"] else round(math.fsum(money), 6),
        "currency": prices.currency,
    }


def judge_ids(setup: Setup) -> dict[str, str]:
    """Return a digest of the judge per tier; nights are compared only if judge and method are the same."""
    config = part_keys.semantic(setup.config)
    # A section that is left out of the configuration's digest has its defaults.
    method = part_keys.digest({name: config[name] for name in _DECIDING if name in config})
    further = [part_keys.semantic(encoder) for _, encoder in sorted(setup.encoders.items())]
    found = {"similarity": part_keys.digest([method, setup.encoder_key, *further])}
    if setup.imported is not None:
        found[IMPORTED] = part_keys.digest(dict(setup.imported.files))
    for tier in setup.tiers:
        asked = [part_keys.semantic(tier.judge), part_keys.semantic(tier.engine), dict(tier.shown)]
        found[tier.name] = part_keys.digest(asked if tier.scores is None else [*asked, dict(tier.scores.files)])
    fitted = [] if setup.calibration is None else [setup.calibration.calibration.digest]
    return found | {CASCADE: part_keys.digest([method, *found.values(), *fitted])}


def mixes(store: Store, decide: StageRun, before: Sequence[str]) -> Mixes:
    """Count the verdicts of every tier, over all pairs and over the new ones.

    Args:
        store: of the curation.
        decide: the finished stage of that name.
        before: the stage's parts in the night before, from `part_names`.
    """
    mine = part_names([decide])
    seen = _texts_of(store, sorted(set(before) - set(mine)))
    every: dict[str, States] = {}
    fresh: dict[str, list[pl.DataFrame]] = {}
    for manifest in decide.manifests:
        pairs = _inputs(store, manifest, "candidates").select(*_PAIR, text=_hashed())
        known = seen is not None and str(manifest.name) in before
        new = pairs.clear() if known or seen is None else pairs.filter(~pl.col("text").is_in(seen.implode()))
        tiers = {"similarity": _inputs(store, manifest, "verdicts"), **_answers(store, manifest)}
        tiers[CASCADE] = read_table(store, Table("decisions", manifest.tables["decisions"]))
        for tier, verdicts in tiers.items():
            states = verdicts.select(*_PAIR, "state").join(pairs, on=_PAIR, how="semi")
            counted = every.setdefault(tier, {})
            for state, count in states.group_by("state").len().sort("state").iter_rows():
                counted[state] = counted.get(state, 0) + count
            fresh.setdefault(tier, []).append(states.join(new, on=_PAIR, how="semi"))
    if seen is None:
        return Mixes(every, None)
    return Mixes(every, {tier: _mix(pl.concat(frames)) for tier, frames in fresh.items()})


def _mix(states: pl.DataFrame) -> dict[str, Any]:
    counted = dict(states.group_by("state").len().sort("state").iter_rows())
    queries = states.select("dataset", "query_id").n_unique()
    effect = round(design_effect(states), 3) if states.height else 1.0
    return {"states": counted, "queries": queries, "effect": effect}


def _texts_of(store: Store, parts: Sequence[str]) -> pl.Series | None:
    """Return hashes of the texts of all pairs in earlier parts of `decide`; None if a part is gone."""
    found = [pl.Series("text", [], dtype=pl.UInt64)]
    for part in parts:
        name = ManifestName.parse(part)
        if not store.exists(f"parts/{st.DECIDE.name}/{part}.json"):
            return None
        manifest = read_manifest(store, st.DECIDE.name, name.key, name.attempt)
        if not all(store.exists(piece.object) for piece in _pieces(manifest, "candidates")):
            return None
        found.append(_inputs(store, manifest, "candidates").select(text=_hashed())["text"])
    return pl.concat(found).unique()


def _hashed() -> pl.Expr:
    """Hash a pair's texts to 64 bits: enough for millions of pairs, in an eighth of the memory of the full hashes."""
    return pl.concat_str(_TEXTS).hash(seed=0)


def _answers(store: Store, manifest: Manifest) -> dict[str, pl.DataFrame]:
    """Read the verdicts of the tiers after similarity on the pairs of one part of `decide`."""
    if not _pieces(manifest, "llm_verdicts"):
        return {}
    verdicts = _inputs(store, manifest, "llm_verdicts").select(*_PAIR, "tier", "state")
    return {str(tier[0]): frame for tier, frame in verdicts.partition_by("tier", as_dict=True).items()}


def _inputs(store: Store, manifest: Manifest, name: str) -> pl.DataFrame:
    return read_table(store, Table(name, _pieces(manifest, name)))


def _pieces(manifest: Manifest, name: str) -> tuple[Piece, ...]:
    return tuple(Piece(0, object_key(digest), 0) for digest in manifest.ingredients["inputs"][name])
