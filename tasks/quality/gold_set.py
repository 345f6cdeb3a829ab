"""Read the gold set and compare the judges with it. Its pairs have known labels and are judged every night.

If the agreement changes, a judge has changed. The file, which may be compressed, has one JSON object a line:
{"query": …, "positives": […], "passage": …, "label": "relevant" or "not_relevant"}, and optionally "title" (of the
passage) and "dataset" (whose definition of relevance is used).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.agreement import two_state_kappa
from tasks.clustered import share_of_groups
from tasks.lines import Problem, ReadLimits, UnusableError, kind_of, parse_object, read_lines
from tasks.schemas import CANDIDATES, GOLD, GOLD_AGREEMENT, GOLD_VERDICTS, PASSAGES, POSITIVES, QUERIES, REJECTS
from tasks.texts import clean, combine_hashes, hash_guard, hash_passage, hash_shown, hash_text

STAGE = "read_gold"
_CASCADE = "cascade"
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_LABELS = ("relevant", "not_relevant")
_SHOWN = 80  # characters of a wrong value that a reject shows
_SPACE = re.compile(r"[\t\r\n]")
_LIMITS = ReadLimits()


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
    for key, line in _lines(source):
        try:
            item = _item(config, line)
        except UnusableError as error:
            detail = error.detail.partition(" (ingest.")[0]  # the limits of a gold set are no settings
            rejects.append((STAGE, key, error.reason, detail))
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
        first = {reason: f"{reason}, first at {key}: {detail}" for _, key, reason, detail in reversed(rejects)}
        raise GoldError(
            f"gold: no usable row ({'; '.join(sorted(first.values())) or 'there is no file'}). One JSON object a line "
            "expected: query, positives, passage, label"
        )
    return _tables(items) | {"rejects": pl.DataFrame(rejects, schema=REJECTS.columns, orient="row")}


def _lines(source: Path) -> Iterator[tuple[str, str | Problem]]:
    """Yield `file:line`, and the line or what is wrong with it."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        for item in read_lines(path, path.relative_to(source).as_posix(), _LIMITS):
            yield (item.key, item) if isinstance(item, Problem) else item


def _item(config: GoldConfig, line: str | Problem) -> dict[str, Any]:
    """Read one row. Its texts are cleaned as ingest does it, and their hashes are the ids."""
    if isinstance(line, Problem):
        raise UnusableError(line.reason, line.detail)
    row = parse_object(line, _LIMITS.depth)
    label = row.get("label")
    if label not in _LABELS:
        raise UnusableError("unknown_label", f"{' or '.join(_LABELS)} expected, {repr(label)[:_SHOWN]} came")
    query, passage = _text(row, "query"), _text(row, "passage")
    title, dataset = _optional(row, "title"), _SPACE.sub(" ", _optional(row, "dataset")) or config.dataset
    listed = row.get("positives")
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) and clean(text) for text in listed):
        raise UnusableError("no_positives", "positives: a list of at least one text expected")
    positives = {hash_passage("", clean(text)): clean(text) for text in listed}
    passage_hash, query_hash = hash_passage(title, passage), hash_text(query)
    if passage_hash in positives:
        raise UnusableError("passage_is_positive", "the passage is one of the positives, so nothing is asked")
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
        raise UnusableError("no_text", f"{name}: a text expected")
    return text


def _optional(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name} is {kind_of(value)}, expected a string")
    return clean(value or "")


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
            hashed = (text_hash, hash_shown("", text), hash_guard("", text))
            positives[(*query, text_hash)] = (*query, text_hash, *hashed, "gold")
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

    `unsure` and `unparsed` count as no right answer. Kappa is that of two states: `relevant` against everything else
    that a tier said. The intervals treat the queries as a sample and are clustered by them.

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
    kappa, _ = two_state_kappa(verdicts["label"].to_list(), verdicts["state"].to_list(), verdicts.select(_QUERY).rows())
    by_query = verdicts.group_by(_QUERY, maintain_order=True).agg(
        right=(pl.col("label") == pl.col("state")).sum(), items=pl.len()
    )
    accuracy = share_of_groups(by_query["right"].to_list(), by_query["items"].to_list())
    return {
        "tier": tier,
        "items": verdicts.height,
        "kappa": kappa.value,
        "kappa_low": kappa.low,
        "kappa_high": kappa.high,
        "accuracy": accuracy.value or 0.0,
        "accuracy_low": accuracy.low or 0.0,
        "accuracy_high": 1.0 if accuracy.high is None else accuracy.high,
        "unparsed": verdicts.filter(pl.col("state") == "unparsed").height,
    }
