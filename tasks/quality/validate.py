"""Measure agreement of people and judges, and precision and recall of the judges, from the labels of the sample.

The paper (section 7) reports kappa of 0.32 and 0.39 on pairs from flagged rows only, without intervals, and no
precision or recall. Here the sample is stratified over all pairs with known probabilities. So precision, recall and the
share of false negatives are estimates for the whole pool, each with an interval clustered by query (tasks.clustered).

The labelled pairs of a stratum are treated as a random choice, as people label a shuffled sheet from the top.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.agreement import SURE, alpha_interval, kappa_interval, two_state_kappa
from tasks.clustered import Sample
from tasks.formatting import markdown_table
from tasks.parts import Rows, in_parts
from tasks.protocols import InParts
from tasks.quality.labels import newest, settle
from tasks.quality.sample import Queries, as_sample, with_strata
from tasks.schemas import VALIDATION
from tasks.statistics import Interval
from tasks.verdicts.shared_errors import ALL, deciding, kinds_of_pairs, shared_errors

PAGE_FILE = "validation.md"
SUMMARY_FILE = "validation.json"

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_TEXTS = ["query_hash", "text_hash"]
_CASCADE = "cascade"
_SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of the pool, called relevant
_RELEVANT = pl.when(pl.col("label") != "unsure").then(pl.col("label") == "relevant")
_FEW = 10  # labels; thresholds with fewer labels above them are skipped

Bools = npt.NDArray[np.bool_]


class ValidateConfig(BaseModel):
    """What is measured.

    tiers: the tiers apart from similarity, in the order asked; set by the flow.
    wanted_precision: precisions for which thresholds are searched.
    min_labels: the least number of labelled pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[str, ...] = ("llm",)
    wanted_precision: tuple[float, ...] = (0.8, 0.9, 0.95)
    min_labels: int = Field(20, ge=1)
    seed: int = 0
    title: str = "Validation"


@dataclass(frozen=True)
class _Pool:
    """All pairs, with stratum, and `relevant` by people's labels."""

    frame: pl.DataFrame  # query (a number), stratum, relevant (null: no label, or `unsure`)
    seed: int

    @property
    def labelled(self) -> Bools:
        return self.frame["relevant"].is_not_null().to_numpy()

    @cached_property
    def sample(self) -> Sample:
        """The pairs with their labels, for estimates."""
        return as_sample(self.frame, "relevant", self.seed)

    def rates(self, called: Bools) -> dict[str, Interval]:
        """Estimate precision and recall of calling these pairs relevant, and the share of relevant ones in the rest."""
        return {
            "precision": self.sample.precision(called),
            "recall": self.sample.recall(called),
            "missed_share": self.sample.share(~called),
        }


@dataclass(frozen=True)
class _Read:
    """What is kept of all pairs, and more of those with a clear label.

    asked: for all pairs in the order of the pool: did the tier judge and call them relevant; its score or null.
    drawn: the sampled pairs with the hashes of their texts. settled: their labels.
    deciding, judges: the tiers but the cascade that decide anything, and their verdicts on the pairs with a clear
    label. kinds: of these pairs (tasks.verdicts.shared_errors).
    """

    pool: _Pool
    asked: dict[str, pl.DataFrame]
    drawn: pl.DataFrame
    settled: pl.DataFrame
    judges: dict[str, pl.DataFrame]
    kinds: pl.DataFrame


def validate(  # noqa: PLR0913 - tables by name
    config: ValidateConfig,
    *,
    candidates: Rows,
    similarity: Rows,
    llm_verdicts: Rows,
    decisions: Rows,
    samples: pl.DataFrame,
    human: pl.DataFrame,
    out: Path,
) -> dict[str, pl.DataFrame]:
    """Measure agreement, precision and recall by people's labels; write `validation.json` and `validation.md`.

    A label counts for the sampled pairs with its texts. Several labels are combined as in `tasks.quality.labels`. A
    pair that is `unsure` counts as not labelled. A pair that a tier did not judge, or could not read, counts as not
    called relevant by the tier. Candidates and verdicts may come in parts, which are read one by one; of most pairs
    only numbers are kept.

    Returns:
        `validation`: kappa, precision, recall and missed_share per tier; relevant_share of the pool; alpha of all
            people and kappa of each two.

    Raises:
        ValueError: fewer than `min_labels` sampled pairs have a clear label, or the sample is of another curation.
    """
    tables = {"similarity": similarity, "llm_verdicts": llm_verdicts, "decisions": decisions}
    read = _read(config, in_parts(candidates), {n: in_parts(t) for n, t in tables.items()}, samples, human)
    labels = read.drawn.join(newest(human), on=_TEXTS).select(*_PAIR, *_TEXTS, "annotator", "label").sort(pl.all())
    truth = read.settled.drop_nulls("relevant").select(*_PAIR, "relevant").sort(_PAIR)
    if truth.height < config.min_labels:
        raise ValueError(
            f"validate: clear labels of at least {config.min_labels} sampled pairs expected, {truth.height} came "
            f"(of {samples.height} on the sheet); label more rows, or set min_labels lower"
        )
    rows = list(_measure(read.pool, read.asked)) + list(_between_people(labels, config.seed))
    counts = {
        "sampled": samples.height,
        "labelled": read.settled.height,
        "clear": truth.height,
        "unsure": read.settled.height - truth.height,
        "of_these_tied": read.settled.filter("tied").height,
        "labels": labels.height,
        "labels_elsewhere": newest(human).join(read.drawn, on=_TEXTS, how="anti").height,
        "annotators": sorted(labels["annotator"].unique()),
    }
    common = shared_errors(read.judges, truth, read.kinds, config.seed)
    summary = _summary(config, read.pool, read.asked, counts, rows) | {"shared_errors": common.to_dicts()}
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / PAGE_FILE).write_text(_page(summary), encoding="utf-8")
    table = [(subject, measure, *interval, labels_) for subject, measure, interval, labels_ in rows]
    return {"validation": pl.DataFrame(table, schema=VALIDATION.columns, orient="row").sort(VALIDATION.key)}


def _read(
    config: ValidateConfig,
    candidates: InParts,
    tables: Mapping[str, InParts],
    samples: pl.DataFrame,
    human: pl.DataFrame,
) -> _Read:
    """Read all pairs part by part; refuse a sample with other strata."""
    combined, queries = settle(human), Queries()
    tiers = (_CASCADE, "similarity", *config.tiers)
    kept: dict[str, list[pl.DataFrame]] = {name: [] for name in ("pool", "drawn", "settled", "kinds")}
    asked, judges = ({tier: list[pl.DataFrame]() for tier in tiers} for _ in range(2))
    decides = set[str]()
    for part in candidates.parts:
        pairs, answers, decided = candidates.at(part), tables["llm_verdicts"].at(part), tables["decisions"].at(part)
        said = {_CASCADE: decided, "similarity": tables["similarity"].at(part)}
        said |= {tier: answers.filter(pl.col("tier") == tier) for tier in config.tiers}
        strata = with_strata(pairs, decided)
        drawn = _drawn(samples, strata)
        settled = drawn.join(combined, on=_TEXTS).select(*_PAIR, "tied", relevant=_RELEVANT)
        clear = settled.drop_nulls("relevant").select(_PAIR)
        labelled = strata.join(settled, on=_PAIR, how="left", maintain_order="left")
        kept["pool"].append(queries.number(labelled).select("query", "stratum", "relevant"))
        kept["drawn"].append(drawn)
        kept["settled"].append(settled)
        kept["kinds"].append(kinds_of_pairs(pairs.join(clear, on=_PAIR, how="semi"), decided))
        for tier, verdicts in said.items():
            asked[tier].append(_asked(strata, verdicts))
            judges[tier].append(verdicts.select(*_PAIR, "state").join(clear, on=_PAIR, how="semi"))
        decides |= set(deciding(said))
    whole = {name: pl.concat(frames) for name, frames in kept.items()}
    if strange := samples.height - whole["drawn"].height:
        raise ValueError(
            f"validate: the sample's pairs in the strata they were drawn from expected, {strange} of {samples.height} "
            "are elsewhere; validate the curation that drew the sample"
        )
    return _Read(
        pool=_Pool(queries.in_order(whole["pool"]), config.seed),
        asked={tier: pl.concat(frames) for tier, frames in asked.items()},
        drawn=whole["drawn"],
        settled=whole["settled"],
        judges={tier: pl.concat(judges[tier]) for tier in tiers if tier != _CASCADE and tier in decides},
        kinds=whole["kinds"],
    )


def _summary(
    config: ValidateConfig,
    pool: _Pool,
    asked: dict[str, pl.DataFrame],
    counts: dict[str, Any],
    rows: list[tuple[str, str, Interval, int]],
) -> dict[str, Any]:
    """Return the content of `validation.json`."""
    curves = {name: _curve(pool, verdicts["score"]) for name, verdicts in asked.items()}
    return {
        "title": config.title,
        "counts": counts,
        "measures": [{"subject": s, "measure": m, **i.rounded(), "labels": n} for s, m, i, n in rows],
        "strata": _strata(pool),
        "thresholds": {name: _thresholds(curve, config.wanted_precision) for name, curve in curves.items()},
        "curves": curves,
    }


def _drawn(samples: pl.DataFrame, strata: pl.DataFrame) -> pl.DataFrame:
    """Return the sampled pairs of a part that are in the strata they were drawn from, with their texts' hashes."""
    found = samples.join(strata.select(*_PAIR, *_TEXTS, now="stratum"), on=_PAIR)
    return found.filter(pl.col("now") == pl.col("stratum")).select(*_PAIR, *_TEXTS)


def _asked(pairs: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return, for all pairs in their order: did the tier judge and call them relevant; its score or null."""
    found = pairs.select(_PAIR).join(
        verdicts.select(
            *_PAIR, called=pl.col("state") == "relevant", score=pl.col("score").fill_nan(None), judged=pl.lit(True)
        ),
        on=_PAIR,
        how="left",
        maintain_order="left",
    )
    return found.select(pl.col("called", "judged").fill_null(False), "score")


def _measure(pool: _Pool, asked: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str, Interval, int]]:
    labelled = pool.labelled
    yield "pool", "relevant_share", pool.sample.share(), int(labelled.sum())
    people, queries = pool.frame["relevant"].to_numpy(), pool.frame["query"].to_numpy()
    for name, verdicts in asked.items():
        called, judged = verdicts["called"].to_numpy(), verdicts["judged"].to_numpy()
        both = np.flatnonzero(labelled & judged)
        weighed = as_sample(pool.frame.filter(pl.Series(judged)), "relevant", pool.seed).kappa(called[judged])
        plain = kappa_interval(
            people[both].astype(bool).tolist(),
            called[both].tolist(),
            queries[both].tolist(),
            seed=pool.seed,
        )
        yield name, "kappa", weighed, len(both)
        yield name, "kappa_on_sample", plain, len(both)
        counts = {"precision": int((labelled & called).sum()), "missed_share": int((labelled & ~called).sum())}
        for measure, interval in pool.rates(called).items():
            yield name, measure, interval, counts.get(measure, int(labelled.sum()))


def _between_people(labels: pl.DataFrame, seed: int) -> Iterator[tuple[str, str, Interval, int]]:
    """Measure the agreement of people with each other: alpha with `unsure` as a label, kappa of two states."""
    units = labels.group_by(_PAIR, maintain_order=True).agg(pl.col("label")).filter(pl.col("label").list.len() > 1)
    shared = units["label"].to_list()
    yield "people", "alpha", alpha_interval(shared, units.select(_QUERY).rows(), seed), len(shared)
    for one, two in itertools.combinations(sorted(labels["annotator"].unique()), 2):
        sides = [labels.filter(pl.col("annotator") == name).select(*_PAIR, "label") for name in (one, two)]
        both = (
            sides[0]
            .join(sides[1], on=_PAIR, suffix="_two")
            .filter(pl.all_horizontal(pl.col("label", "label_two").is_in(SURE)))
        )
        if both.height:
            queries = both.select(_QUERY).rows()
            kappa, pairs = two_state_kappa(both["label"].to_list(), both["label_two"].to_list(), queries, seed)
            yield f"{one} and {two}", "kappa", kappa, pairs


def _curve(pool: _Pool, scores: pl.Series) -> list[dict[str, Any]]:
    """Return precision and recall at thresholds that call more and more of the pool relevant, strictest first."""
    known = scores.drop_nulls().to_numpy()
    values = scores.fill_null(-np.inf).to_numpy()
    wanted = [int(np.ceil(share * len(values))) for share in _SHARES]
    ranked = np.sort(known)[::-1]
    thresholds = sorted({float(ranked[n - 1]) for n in wanted if 0 < n <= len(ranked)}, reverse=True)
    curve = []
    for threshold in thresholds:
        called = values >= threshold
        rates = pool.rates(called)
        curve.append(
            {
                "threshold": round(threshold, 6),
                "share": round(float(called.mean()), 4),
                "labels": int((called & pool.labelled).sum()),
                "precision": rates["precision"].rounded(),
                "recall": rates["recall"].rounded(),
            }
        )
    return curve


def _thresholds(curve: list[dict[str, Any]], wanted: tuple[float, ...]) -> list[dict[str, Any]]:
    """Find the lowest threshold that reaches a wanted precision: by estimate (`likely`), and with confidence (`sure`).

    For `sure`, thresholds are tested from the strictest one until the first that fails. With this fixed sequence the
    number of tests needs no correction. Thresholds with few labels above them are skipped.
    """
    found = []
    tested = [point for point in curve if point["labels"] >= _FEW]
    for precision in wanted:
        sure = list(itertools.takewhile(lambda p: (p["precision"]["low"] or 0) >= precision, tested))  # noqa: B023
        likely = [p for p in tested if (p["precision"]["value"] or 0) >= precision]
        found.append(
            {
                "precision": precision,
                "sure": sure[-1]["threshold"] if sure else None,
                "sure_recall": sure[-1]["recall"] if sure else None,
                "likely": likely[-1]["threshold"] if likely else None,
                "likely_recall": likely[-1]["recall"] if likely else None,
            }
        )
    return found


def _strata(pool: _Pool) -> list[dict[str, Any]]:
    """Count the pairs, labelled pairs and relevant pairs of each stratum."""
    counted = pool.frame.group_by("stratum").agg(
        pl.len().alias("pairs"),
        pl.col("relevant").count().alias("labelled"),
        pl.col("relevant").sum().alias("relevant"),
    )
    return counted.sort("stratum").to_dicts()


def _page(summary: dict[str, Any]) -> str:
    counts = summary["counts"]
    measures = [[m["subject"], m["measure"], _show(m), str(m["labels"])] for m in summary["measures"]]
    together = [
        [f"{e['first']}, {e['second']}", _kind(e), str(e["pairs"]), f"{e['both_wrong']:.3f}", f"{e['by_chance']:.3f}",
         _show({"value": e["both_wrong"] - e["by_chance"], "low": e["excess_low"], "high": e["excess_high"]})]
        for e in summary["shared_errors"]
    ]  # fmt: skip
    strata = [[s["stratum"], f"{s['pairs']:,}", str(s["labelled"]), str(s["relevant"])] for s in summary["strata"]]
    cuts = [
        [tier, f"{t['precision']:.0%}", _number(t["sure"]), _number(t["likely"])]
        for tier, of in summary["thresholds"].items()
        for t in of
    ]
    return "\n\n".join(
        [
            f"# {summary['title']}",
            f"{counts['clear']} of {counts['sampled']} sampled pairs have a clear label by "
            f"{len(counts['annotators'])} annotator(s); {counts['unsure']} are unsure, "
            f"{counts['of_these_tied']} of them by a tie.",
            "## By people's labels",
            markdown_table(["of", "measure", "value (95%)", "labels"], measures),
            "## Thresholds that reach a precision",
            markdown_table(["score of", "precision", "surely from", "by estimate from"], cuts),
            "## Where two judges are wrong together",
            markdown_table(["judges", "pairs", "counted", "both wrong", "by chance", "difference (95%)"], together),
            "## Strata",
            markdown_table(["stratum", "pairs", "labelled", "relevant"], strata),
            "Precision, recall and shares hold for the whole pool: labels are weighted by how they were sampled. "
            "Kappa is that of two states, `relevant` against everything else that a tier said, over the pairs that it "
            "judged and people are sure of. `kappa_on_sample` is not weighted, as in the paper. Intervals are "
            "clustered by query and hold for queries like these.",
            "",
        ]
    )


def _kind(errors: dict[str, Any]) -> str:
    return "all" if errors["kind"] == ALL else f"{errors['kind']}: {errors['value']}"


def _show(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return "not defined"
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
