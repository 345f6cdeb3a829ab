"""Sum up what the data looks like, for terminal, JSON and report, from counts that `tasks.report.describe` made."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from tasks.rejects import REASONS, LeftOut, reason_of, with_counts
from tasks.report.describe import (
    CANDIDATES,
    NEGATIVES,
    PASSAGE_CHARS,
    POSITIVES,
    QUERY_CHARS,
    RANK,
    SCORE,
)

ALL = "all"
_SPLITS = ("train", "dev", "test")
# Subjects in the order shown, with their names for people.
NAMES: Mapping[str, str] = {
    QUERY_CHARS: "characters of a query",
    PASSAGE_CHARS: "characters of a passage",
    POSITIVES: "positives of a query",
    CANDIDATES: "candidates of a training query",
    NEGATIVES: "negatives of a training query",
    RANK: "rank of a negative",
    SCORE: "score of a negative",
}
_MERGED = tuple(name for name in REASONS if name.startswith("duplicate_"))
_CUT = ("query_cut", "passage_cut")


def sum_up_data(counts: pl.DataFrame, rejects: pl.DataFrame) -> dict[str, Any]:
    """Sum up the counts of all parts.

    Args:
        counts: a table of `tasks.schemas.COUNTS`.
        rejects: those of all stages.

    Returns:
        datasets: for each dataset, and first for `all` if there are several: `queries` by split, `passages`, and for
            each subject `{count, total, min, median, max}`, null where nothing was counted.
        merged, cut: how many texts, by reason.
        left_out: by stage and reason, how many; without what is merged or cut.
    """
    datasets = sorted(set(counts["dataset"]))
    named = [(name, counts.filter(pl.col("dataset") == name)) for name in datasets]
    if len(datasets) > 1:
        named.insert(0, (ALL, counts))
    by_stage: dict[str, dict[str, int]] = {}
    for stage, reason, count in _by_reason(rejects):
        if reason not in (*_MERGED, *_CUT):
            by_stage.setdefault(stage, {})[reason] = count
    return {
        "datasets": [_of_dataset(name, frame) for name, frame in named],
        "merged": _only(rejects, _MERGED),
        "cut": _only(rejects, _CUT),
        "left_out": by_stage,
    }


def table_of_rejects(rejects: pl.DataFrame) -> list[dict[str, Any]]:
    """Count rejects by stage and reason, losses first, with what the reason means and the first example of each."""
    order = {"loss": 0, "choice": 1, "note": 2}
    found = (
        with_counts(rejects)
        .sort("stage", "reason", "key")
        .group_by("stage", "reason", maintain_order=True)
        .agg(pl.col("count").sum().alias("rows"), pl.col("key").first(), pl.col("detail").first())
        .to_dicts()
    )
    rows = [row | {"kind": reason_of(row["reason"]).kind, "says": reason_of(row["reason"]).says} for row in found]
    return sorted(rows, key=lambda row: (order[row["kind"]], row["stage"], row["reason"]))


def closing_line(summary: Mapping[str, Any], where: str = "report.html") -> str:
    """Say in one line what ingest left out, from a curation's summary; empty if nothing was left out.

    where: the page that shows more; empty if there is none.
    """
    figures = summary.get("rejects")
    line = LeftOut.from_dict(figures).line() if figures else ""
    return f"{line} (see {where})" if line and where else line


def account(summary: Mapping[str, Any], where: str = "report.html") -> str:
    """Say in one line what became of the rows that ingest read; empty if nobody counted them and nothing was left out.

    >>> account({"rejects": LeftOut(3).as_dict()})
    'ingest read 3 rows and left out none'
    """
    figures = summary.get("rejects") or {}
    read = figures.get("rows_read")
    return closing_line(summary, where) or ("" if read is None else f"ingest read {read:,} rows and left out none")


def _of_dataset(name: str, counts: pl.DataFrame) -> dict[str, Any]:
    splits = dict(
        counts.filter(pl.col("subject") == QUERY_CHARS).group_by("kind").agg(pl.col("count").sum()).iter_rows()
    )
    figures = {subject: _spread(counts.filter(pl.col("subject") == subject)) for subject in NAMES}
    passages = figures[PASSAGE_CHARS]
    return {
        "dataset": name,
        "queries": {split: splits[split] for split in _SPLITS if split in splits},
        "passages": passages["count"] if passages else 0,
        **figures,
    }


def _spread(counts: pl.DataFrame) -> dict[str, Any] | None:
    """Return count, total, smallest, median (the lower of two) and largest of the counted values."""
    if counts.is_empty():
        return None
    values = counts.group_by("value").agg(pl.col("count").sum()).sort("value")
    number = int(values["count"].sum())
    middle = values.filter(pl.col("count").cum_sum() * 2 >= number)["value"][0]
    total = float((values["value"] * values["count"]).sum())
    spread = {"min": values["value"][0], "median": middle, "max": values["value"][-1]}
    return {"count": number, "total": _plain(total)} | {name: _plain(value) for name, value in spread.items()}


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 3)


def _by_reason(rejects: pl.DataFrame) -> Iterable[tuple[str, str, int]]:
    return (
        with_counts(rejects).group_by("stage", "reason").agg(pl.col("count").sum()).sort("stage", "reason").iter_rows()
    )


def _only(rejects: pl.DataFrame, reasons: tuple[str, ...]) -> dict[str, int]:
    return {reason: count for _, reason, count in _by_reason(rejects) if reason in reasons}
