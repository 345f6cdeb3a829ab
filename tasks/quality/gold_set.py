"""Read the gold set and compare the judges with it. Its pairs have known labels and are judged every night.

If the agreement changes, a judge has changed. The file has one JSON object a line:
{"query": …, "positives": […], "passage": …, "label": "relevant" or "not_relevant"}, and optionally "title" (of the
passage) and "dataset" (whose definition of relevance is used).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import CANDIDATES, GOLD, GOLD_AGREEMENT, GOLD_VERDICTS, PASSAGES, POSITIVES, QUERIES, REJECTS
from tasks.statistics import kappa_interval, wilson
from tasks.texts import clean, combine_hashes, hash_passage, hash_text

STAGE = "read_gold"
_CASCADE = "cascade"
_PAIR = ["dataset", "query_id", "doc_id"]
_LABELS = ("relevant", "not_relevant")


class GoldError(ValueError):
    """The gold set cannot be used. The message says why, and what to do."""


class GoldConfig(BaseModel):
    """How the gold set is read and compared.

    dataset: the dataset of rows that name none; set by the flow. tiers: the tiers apart from similarity; set by the
        flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = "gold"
    tiers: tuple[str, ...] = ("llm",)


class _Reject(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_gold(config: GoldConfig, *, source: Path) -> dict[str, pl.DataFrame]:
    """Read the gold set from the files of a folder, into the tables that judges read.

    Ids are made from the texts, so they stay the same when rows are added. Rows that cannot be used are rejects. If a
    pair has two different labels, all its rows are rejects.

    Raises:
        GoldError: no row can be used.
    """
    good: dict[tuple[str, str, str], dict[str, Any]] = {}
    rejects: list[tuple[str, str, str, str]] = []
    contradicted: dict[tuple[str, str, str], str] = {}
    for key, row in _rows(source):
        try:
            item = _item(config, row)
        except _Reject as reject:
            rejects.append((STAGE, key, reject.reason, str(reject)))
            continue
        pair = (item["dataset"], item["query_id"], item["doc_id"])
        if pair in good and good[pair]["label"] == item["label"]:
            rejects.append((STAGE, key, "duplicate", "the same texts with the same label stand before"))
        elif pair in good:
            contradicted[pair] = good[pair]["row"]
            rejects.append((STAGE, key, "contradiction", f"the other label stands at {good[pair]['row']}"))
        else:
            good[pair] = item | {"row": key}
    rejects += [(STAGE, row, "contradiction", "the other label stands below") for row in contradicted.values()]
    items = [item for pair, item in sorted(good.items()) if pair not in contradicted]
    if not items:
        reasons = ", ".join(sorted({reason for _, _, reason, _ in rejects})) or "the file is empty"
        raise GoldError(
            f"gold: no usable row ({reasons}); one JSON object a line expected: query, positives, passage, label"
        )
    return _tables(items) | {"rejects": pl.DataFrame(rejects, schema=REJECTS.columns, orient="row")}


def _rows(source: Path) -> Iterator[tuple[str, object]]:
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        for number, line in enumerate(path.read_bytes().decode("utf-8-sig", errors="replace").split("\n"), start=1):
            if line.strip():
                yield f"{path.name}:{number}", _parse(line)


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _item(config: GoldConfig, row: object) -> dict[str, Any]:
    """Read one row. Its texts are cleaned as ingest does it, and their hashes are the ids."""
    if not isinstance(row, dict):
        raise _Reject("not_json", "one JSON object a line expected")
    label = row.get("label")
    if label not in _LABELS:
        raise _Reject("unknown_label", f"{' or '.join(_LABELS)} expected, {label!r} came")
    query, passage = _text(row, "query"), _text(row, "passage")
    title = clean(row["title"]) if isinstance(row.get("title"), str) else ""
    listed = row.get("positives")
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) and clean(text) for text in listed):
        raise _Reject("no_positives", "positives: a list of at least one text expected")
    positives = {hash_passage("", clean(text)): clean(text) for text in listed}
    passage_hash, query_hash = hash_passage(title, passage), hash_text(query)
    if passage_hash in positives:
        raise _Reject("passage_is_positive", "the passage is one of the positives, so nothing is asked")
    dataset = row.get("dataset") if isinstance(row.get("dataset"), str) else config.dataset
    return {
        "dataset": dataset,
        "query_id": combine_hashes([query_hash, *sorted(positives)]),
        "doc_id": passage_hash,
        "label": label,
        "query": query,
        "query_hash": query_hash,
        "title": title,
        "passage": passage,
        "positives": dict(sorted(positives.items())),
    }


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    text = clean(value) if isinstance(value, str) else ""
    if not text:
        raise _Reject("no_text", f"{name}: a text expected")
    return text


def _tables(items: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    queries, passages, positives, candidates, gold = {}, {}, {}, [], []
    ranks: dict[tuple[str, str], int] = {}
    for item in items:
        dataset = item["dataset"]
        query = (dataset, item["query_id"])
        ranks[query] = ranks.get(query, 0) + 1
        # The split is "train", as only training queries are encoded and judged.
        queries[query] = (*query, item["query"], item["query_hash"], "train")
        passages[(dataset, item["doc_id"])] = (dataset, item["doc_id"], item["title"], item["passage"], item["doc_id"])
        for text_hash, text in item["positives"].items():
            passages[(dataset, text_hash)] = (dataset, text_hash, "", text, text_hash)
            positives[(*query, text_hash)] = (*query, text_hash, text_hash, "gold")
        hashes = (item["doc_id"], item["query_hash"], combine_hashes(item["positives"]))
        candidates.append((*query, item["doc_id"], *hashes, "gold", ranks[query], None))
        gold.append((*query, item["doc_id"], item["label"]))
    return {
        "queries": pl.DataFrame(list(queries.values()), schema=QUERIES.columns, orient="row").sort(QUERIES.key),
        "passages": pl.DataFrame(list(passages.values()), schema=PASSAGES.columns, orient="row").sort(PASSAGES.key),
        "positives": pl.DataFrame(list(positives.values()), schema=POSITIVES.columns, orient="row").sort(POSITIVES.key),
        "candidates": pl.DataFrame(candidates, schema=CANDIDATES.columns, orient="row").sort(CANDIDATES.key),
        "gold": pl.DataFrame(gold, schema=GOLD.columns, orient="row").sort(GOLD.key),
    }


def agree_gold(
    config: GoldConfig,
    *,
    gold: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare each tier, and the decisions of all tiers, with the gold labels. Each tier judges all pairs.

    `unsure` and `unparsed` agree with no label. The interval of kappa treats the pairs as a sample; that of the
    accuracy is Wilson's.

    Returns:
        `agreement`: one row per tier. `verdicts`: one row per tier and pair, to compare with other nights.
    """
    asked = {tier: llm_verdicts.filter(pl.col("tier") == tier) for tier in config.tiers}
    tiers = {"similarity": similarity, **asked, _CASCADE: decisions}
    verdicts = {
        tier: gold.join(said.select(*_PAIR, "state", "score"), on=_PAIR)
        .with_columns(tier=pl.lit(tier))
        .select(*GOLD_VERDICTS.columns)
        .sort(GOLD_VERDICTS.key)
        for tier, said in tiers.items()
    }
    rows = [_agreement(tier, frame) for tier, frame in verdicts.items()]
    return {
        "agreement": pl.DataFrame(rows, schema=GOLD_AGREEMENT.columns).sort(GOLD_AGREEMENT.key),
        "verdicts": pl.concat(verdicts.values()).sort(GOLD_VERDICTS.key),
    }


def _agreement(tier: str, verdicts: pl.DataFrame) -> dict[str, str | int | float | None]:
    right = int((verdicts["label"] == verdicts["state"]).sum())
    kappa = kappa_interval(verdicts["label"].to_list(), verdicts["state"].to_list())
    low, high = wilson(right, verdicts.height)
    return {
        "tier": tier,
        "items": verdicts.height,
        "kappa": kappa.value,
        "kappa_low": kappa.low,
        "kappa_high": kappa.high,
        "accuracy": right / verdicts.height if verdicts.height else 0.0,
        "accuracy_low": low,
        "accuracy_high": high,
        "unparsed": verdicts.filter(pl.col("state") == "unparsed").height,
    }
