"""Say what was left out of the data and why, for terminal, JSON and report.

A reject is a row of `tasks.schemas.REJECTS`. Its reason has an entry in `REASONS`: whether something was lost, was left
out because the settings say so, or is only worth knowing; and a sentence for people.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import polars as pl

from tasks.schemas import REJECTS

INGEST = "ingest"
UNLISTED = "more"  # the key of a reject that counts others, which are not listed
_EXAMPLES = 3
_BY_GROUP = ("not_in_subset",)  # reasons of which one reject counts a dataset's queries

# loss: something of the source is not used. choice: the settings leave it out. note: nothing is left out.
Kind = Literal["loss", "choice", "note"]
# row: the whole row (or line). part: a passage, a label or a field of a row. rest: an unknown number of rows.
Extent = Literal["row", "part", "rest"]


class Reason(NamedTuple):
    """What a reason means."""

    kind: Kind
    extent: Extent
    says: str


def _row(says: str) -> Reason:
    return Reason("loss", "row", says)


def _part(says: str) -> Reason:
    return Reason("loss", "part", says)


def _rest(says: str) -> Reason:
    return Reason("loss", "rest", says)


def _choice(says: str) -> Reason:
    return Reason("choice", "row", says)


def _note(says: str) -> Reason:
    return Reason("note", "part", says)


REASONS: Mapping[str, Reason] = {
    # lines and rows that cannot be read
    "line_too_long": _row("The line is longer than ingest.limits.line_bytes."),
    "row_too_long": _row("The row is longer than ingest.limits.line_bytes."),
    "not_utf8": _row("The line is not UTF-8."),
    "broken_json": _row("The line is not JSON."),
    "broken_row": _row("The row cannot be read."),
    "wrong_columns": _row("The row has more or fewer columns than the header."),
    "too_deep": _row("The line has more nested lists and objects than ingest.limits.depth."),
    "wrong_type": _row("A field is of another type than expected."),
    "other_layout": _row("The row is of another layout than the source."),
    "no_id": _row("The row has no id."),
    "id_too_long": _row("An id or the name of a dataset is too long."),
    "no_query": _row("The row has no query."),
    "empty_text": _row("A text is empty."),
    "no_text": _row("The passage has no text under a name that is read; ingest.fields can name it."),
    "too_many_passages": _row("The row has more passages than ingest.limits.passages."),
    "bad_labels": _row("The labels do not say which passages are positives."),
    "unclear_label": _row("The label is neither a clear yes nor a clear no."),
    "no_positive": _row("The query has no usable positive."),
    "query_id_conflict": _row("The id of the query has another text elsewhere."),
    "unknown_query": _row("The label names a query that is not there, or was left out."),
    "unknown_document": _row("The label names a passage that is not there, or was left out."),
    # parts of rows, and files
    "id_conflict": _part("The id of the passage has another text elsewhere; that one is kept."),
    "bad_scores": _part("The scores of the row do not fit its passages, so they are not used."),
    "unread_field": _part("A field with content that is not read; ingest.fields can name it."),
    "no_such_field": _part("A field that ingest.fields names, and that no row of the file has."),
    "not_read": _part("A file, or a column, that is not read."),
    "bad_header": _part("Two columns have one name; only one of them is read."),
    "broken_csv": _rest("The file is no CSV from a line on; its rest is not read."),
    "broken_text": _rest("The file has another encoding from a line on; its rest is not read."),
    "broken_gzip": _rest("The file ends early or is damaged; its rest is not read."),
    "broken_file": _rest("The file ends early or is damaged; its rest is not read."),
    "too_much_unpacked": _rest("The file unpacks to more than ingest.limits allows; its rest is not read."),
    "missing_file": _rest("A file is not there although the names of the others say so."),
    # what the settings leave out
    "not_in_splits": _choice("The query is in no qrels of the configured splits."),
    "query_in_test": _choice("A training label of a query that is held out."),
    "near_test_query": _choice("The training query says the same, or nearly, as a held-out query."),
    "other_split": _choice("The file, or the row, is of another split than the one that is read."),
    "not_in_subset": _choice("The query is not in the subset (ingest.subset)."),
    "below_min_relevance": _choice("The label is below ingest.min_relevance."),
    "ambiguous": _choice("The query has more false negatives than treat.max_false_negatives."),
    "has_false_negative": _choice("The query has a false negative, and the treatment drops such queries."),
    "near_positive": _choice("The candidate nearly repeats a positive of its query, and is dropped."),
    "in_evaluation": _choice("The query, or a positive of it, repeats a text of an evaluation set, and is dropped."),
    # what is only worth knowing
    "near_positive_kept": _note("The candidate nearly repeats a positive of its query."),
    "header_again": _note("The header comes again, as where files were put together; it is no row."),
    "empty_file": _note("The file holds no row."),
    "metadata": _note("A file of descriptions, which holds no data."),
    "local_ids": _note("The ids of passages count within their row only, so hashes of the texts name the passages."),
    "ids_reused": _note("Several files use the same ids for other rows, so the file's name is put before them."),
    "query_cut": _note("The query was longer than ingest.max_chars, and is cut."),
    "passage_cut": _note("The passage was longer than ingest.max_chars, and is cut."),
    "duplicate_query": _note("The query is there more than once, and is merged."),
    "duplicate_passage": _note("The passage is there more than once, and is merged."),
    "duplicate_text": _note("Passages with the same text are merged."),
    "duplicate_pair": _note("The label is there more than once; the highest is kept."),
    "duplicate_negative": _note("The negative is there more than once; the first is kept."),
    "negative_is_positive": _note("The negative is a positive of the query too, and is no negative."),
    "known_is_positive": _note("The known false negative is a positive already."),
    "subset_too_small": _note("A dataset has fewer queries than the subset asks for."),
    "holdout_link_not_followed": _note("Some related queries may be on both sides of the split."),
    "no_test_query": _note("No query is held out to evaluate the models."),
    "no_dev_query": _note("No query is held out for choosing settings."),
    "positive_shared_with_held_out": _note("Training queries and held-out queries have positives in common."),
    "same_text_as_positive": _note("A copy of a positive, which is no negative."),
    "same_text_as_candidate": _note("A copy of another candidate."),
    "same_text_as_query": _note("The passage is the query's own text, which is no negative."),
    "same_id_as_query": _note("The passage has the query's own id, which is no negative."),
    "few_negatives": _note("The query has fewer negatives than wanted."),
    "not_rescored": _part("The reranker gave the passage no score, so it is not picked as a negative."),
    "kept_without_negatives": _note("The query has no negative, and is kept with its positives."),
    "no_negatives": _part("The query has no negative."),
    "no_positives": _part("The query has no positive."),
    "unparsed_kept": _note("The judge's answer could not be read, so the pair keeps its label."),
}
_UNKNOWN = _part("")


@dataclass(frozen=True)
class LeftOut:
    """What a stage left out.

    rows_read, lost: rows of the source, and those of them that are not used. `rows_read` is None if nobody counted.
    by_reason: losses by reason, the most frequent first. by_choice: likewise, what the settings leave out.
    notes: likewise, what is only worth knowing.
    """

    rows_read: int | None = None
    lost: int = 0
    by_reason: Mapping[str, int] = field(default_factory=dict)
    by_choice: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of the rows that are lost, from 0 to 1; 1 if the rest of a file is not read."""
        if any(reason_of(name).extent == "rest" for name in self.by_reason):
            return 1.0
        return self.lost / self.rows_read if self.rows_read else float(self.lost > 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON: `rows_read`, `rows_kept`, `lost`, `by_reason`, `by_choice`, `notes`."""
        kept = None if self.rows_read is None else self.rows_read - self.lost
        figures = {"rows_read": self.rows_read, "rows_kept": kept, "lost": self.lost}
        named = {"by_reason": self.by_reason, "by_choice": self.by_choice, "notes": self.notes}
        return figures | {name: dict(counts) for name, counts in named.items()}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> "LeftOut":
        """Return the figures of `as_dict`."""
        return cls(**{name: value for name, value in figures.items() if name != "rows_kept"})

    def line(self, *, losses_only: bool = False) -> str:
        """Say in one line what was left out; empty if nothing was.

        >>> LeftOut(3, 2, {"no_positive": 2}).line()
        'ingest left out 2 of 3 rows: no_positive 2'
        """
        said = []
        if self.by_reason:
            of = f"{self.lost:,} of {self.rows_read:,}" if self.rows_read is not None else f"{self.lost:,}"
            what = f"{of} rows" if self.lost else "parts of rows or files"
            said.append(f"{what}: {_counts(self.by_reason)}")
        if self.by_choice and not losses_only:
            said.append(f"by its settings: {_counts(self.by_choice)}")
        return f"ingest left out {'; '.join(said)}" if said else ""


def reason_of(name: str) -> Reason:
    """Return what a reason means; one that nobody described is a loss of a part."""
    return REASONS.get(name, _UNKNOWN)


def count_left_out(rejects: pl.DataFrame, rows_read: int | None = None, rows_kept: int | None = None) -> LeftOut:
    """Count what ingest left out.

    Args:
        rejects: of any stages; only those of ingest count.
        rows_read: rows of the source; None if nobody counted them.
        rows_kept: those of them that are used, or left out by the settings; None: all but those that a reject names.
    """
    counted = with_counts(rejects.filter(pl.col("stage") == INGEST))
    counts = counted.group_by("reason").agg(pl.col("count").sum()).sort("count", "reason", descending=[True, False])
    by_kind: dict[Kind, dict[str, int]] = {"loss": {}, "choice": {}, "note": {}}
    for name, count in counts.iter_rows():
        by_kind[reason_of(name).kind][name] = count
    whole = [name for name in by_kind["loss"] if reason_of(name).extent == "row"]
    rows = counted.filter(pl.col("reason").is_in(whole))
    listed = pl.col("key") != UNLISTED
    lost = rows.filter(listed)["key"].n_unique() + int(rows.filter(~listed)["count"].sum())
    if rows_read is not None and rows_kept is not None:
        lost = rows_read - rows_kept
    return LeftOut(rows_read, lost, by_kind["loss"], by_kind["choice"], by_kind["note"])


def explain_losses(rejects: pl.DataFrame) -> str:
    """List the reasons of ingest's losses, one per line: how many, what it means, and the first examples."""
    listed = with_counts(rejects.filter(pl.col("stage") == INGEST))
    lines = []
    for name, count in count_left_out(rejects).by_reason.items():
        found = listed.filter(pl.col("reason") == name, pl.col("key") != UNLISTED)
        lines.append(f"  {name} {count:,}: {reason_of(name).says}".rstrip(": "))
        lines += [f"    {key}: {detail}" for key, detail in found.head(_EXAMPLES).select("key", "detail").iter_rows()]
    return "\n".join(lines)


def sum_up(rejects: pl.DataFrame) -> str:
    """Name all reasons in one line, the most frequent first, each with its first example."""
    counts = with_counts(rejects).group_by("reason", maintain_order=True)
    found = counts.agg(pl.col("count").sum(), pl.col("key", "detail").first()).sort(
        "count", "reason", descending=[True, False]
    )
    return "; ".join(f"{n} {name} (first {key}: {detail})" for name, n, key, detail in found.iter_rows())


def add_up_rejects(rejects: pl.DataFrame | Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Add up the rejects of each stage by reason, with the first of them; those of ingest stay as they are.

    Args:
        rejects: REJECTS, or frames of it, of which one is in memory at a time.

    Returns:
        REJECTS with `count`.
    """
    listed, added = [with_counts(REJECTS.empty())], with_counts(REJECTS.empty())
    for frame in [rejects] if isinstance(rejects, pl.DataFrame) else rejects:
        counted, of_ingest = with_counts(frame), pl.col("stage") == INGEST
        listed.append(counted.filter(of_ingest))
        both = pl.concat([added, counted.filter(~of_ingest)]).sort("stage", "reason", "key", "detail")
        added = (
            both.group_by("stage", "reason", maintain_order=True)
            .agg(pl.col("key", "detail").first(), pl.col("count").sum())
            .select(added.columns)
        )
    return pl.concat([*listed, added])


def with_counts(rejects: pl.DataFrame) -> pl.DataFrame:
    """Add `count`: how many things a reject stands for. Some stand for many, and say so first: "41 more", "6 of 10".

    Rejects that `add_up_rejects` made have it already.
    """
    if "count" in rejects.columns:
        return rejects
    more = pl.when(pl.col("key") == UNLISTED).then(pl.col("detail").str.extract(r"^(\d+) more"))
    part = more.when(pl.col("reason").is_in(_BY_GROUP)).then(pl.col("detail").str.extract(r"^(\d+) of "))
    return rejects.with_columns(count=part.cast(pl.Int64).fill_null(1))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
