"""Draw a stratified sample of pairs for people to label, and write it as a sheet without verdicts (paper §7).

The paper sampled only rows in which a judge had found something, so it could not measure what the judges missed. Here
each state is a stratum, and the inclusion probability of each pair is stored. With these as weights both precision and
recall can be estimated.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.clustered import Sample
from tasks.prompts.prompt import clip, join_texts
from tasks.schemas import SAMPLES, SOURCE_JUDGE
from tasks.summaries import CHANCES, DRAWN, SHORTLIST, SHOWN
from tasks.texts import combine_hashes

_PAIR = ["dataset", "query_id", "doc_id"]
_TEXTS = ["query_hash", "positives_hash", "text_hash"]
_BETWEEN_POSITIVES = "\n\n---\n\n"
# Cells that a spreadsheet would run as a formula. Some do so after leading spaces, and with full-width signs.
_FORMULA = r"^('*\s*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20])"

GUIDELINES = """\
# How to fill in sheet.csv

One row is one question: would you accept `passage` as a correct result for `query`, as you would `positives`?

- `positives` are texts known to be correct results. Use them to see what is being looked for.
- Write into `label`: `relevant`, `not_relevant`, or `unsure` where the query itself can be read in several ways.
- A passage that answers only a part of what the positives answer is `not_relevant`; say so in `comment`.
- Judge by the text alone; do not look anything up. `[…]` marks a text that was cut.
- Work alone, in the order of the rows. The order means nothing, and no machine's opinion is shown.
- Leave `dataset`, `query_id` and `doc_id` as they are. Save as CSV, UTF-8.

A cell that a spreadsheet would take for a formula begins with an added apostrophe; it does not belong to the text.
"""


class SampleConfig(BaseModel):
    """How many pairs are drawn, and how much of their texts the sheet shows.

    size: number of pairs, divided equally among the strata; if a stratum is too small, the others get its share.
    seed: seed of the draw.
    annotator: who will label the sheet, if known.
    wait_for: share of the drawn pairs that must be labelled before any treatment; 0: treatments do not wait.
    *_chars: lengths shown, in characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(100, ge=0)
    seed: int = 0
    annotator: str = ""
    wait_for: float = Field(0.0, ge=0, le=1, json_schema_extra={"operational": True})
    passage_chars: int = Field(4000, ge=1)
    positives_chars: int = Field(8000, ge=1)


def shortlist(config: SampleConfig, *, candidates: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Shortlist the pairs of one query part that can be drawn: of each stratum as many as the whole sample has.

    A stratum is dataset / state / whether the LLM was asked. Pairs are drawn by a hash of the seed and their texts, so
    the order of rows, the parts and the cluster make no difference.

    Returns:
        `shortlist`: SHORTLIST. `strata`: STRATA, how many pairs each stratum has in this part.

    Raises:
        ValueError: a candidate has no decision.
    """
    pairs = with_strata(candidates, decisions)
    sizes = pairs.group_by("stratum").agg(pairs=pl.len().cast(pl.Int64)).sort("stratum")
    return {"shortlist": _shortlist(config, pairs).select(*SHORTLIST.columns), "strata": sizes}


def draw(config: SampleConfig, *, shortlist: pl.DataFrame, strata: pl.DataFrame) -> dict[str, Any]:
    """Draw the sample from the shortlists of all parts.

    Args:
        config: how many are drawn.
        shortlist: `stratum` and `hash` of each pair, and the number of its query part in `part`.
        strata: STRATA of all parts.

    Returns:
        `drawn`: an iterable of query parts and DRAWN. `chances`: CHANCES. They change with every pair that is added, so
        they are kept apart from the drawn pairs, of which few change then.
    """
    drawn = _choose(config, shortlist, strata).sort("part", "hash")
    parts = drawn.partition_by("part", as_dict=True, maintain_order=True)
    return {
        "drawn": ((int(part), frame.select(*DRAWN.columns)) for (part,), frame in parts.items()),
        "chances": _allotted(config, strata).select(*CHANCES.columns),
    }


def show_pairs(
    config: SampleConfig,
    *,
    drawn: pl.DataFrame,
    shortlist: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Return `shown`: the drawn pairs of one query part, with the texts that people read.

    Raises:
        ValueError: the hashes of a candidate do not fit the texts.
    """
    pairs = shortlist.join(drawn, on="hash", maintain_order="left")
    joined = join_texts(pairs, queries=queries, passages=passages, positives=positives)
    return {"shown": _shown(config, joined).select(*SHOWN.columns).sort(SHOWN.key)}


def sample(config: SampleConfig, *, shown: pl.DataFrame, chances: pl.DataFrame, out: Path) -> dict[str, pl.DataFrame]:
    """Write `sheet.csv` and `guidelines.md` of the drawn pairs of all parts into `out`.

    The sheet is UTF-8 with a byte order mark, which Excel needs: read it as `utf-8-sig`.

    Returns:
        `samples`: stratum and inclusion probability of each drawn pair. These are not on the sheet.
    """
    out.mkdir(parents=True, exist_ok=True)
    _sheet(shown).write_csv(out / "sheet.csv", include_bom=True, quote_style="non_numeric")
    (out / "guidelines.md").write_text(GUIDELINES, encoding="utf-8")
    samples = shown.join(chances, on="stratum").with_columns(annotator=pl.lit(config.annotator))
    samples = samples.select(*SAMPLES.columns).sort(SAMPLES.key)
    return {"samples": samples}


def as_given(cell: str) -> str:
    """Remove the apostrophe that the sheet adds to cells that a spreadsheet would run as a formula.

    >>> as_given("'=1+1"), as_given("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and re.match(_FORMULA, cell) else cell


def with_strata(candidates: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """Add `state`, `call_id` and `stratum` (dataset / state / whether the LLM was asked) to the candidates.

    Pairs that people called irrelevant in the source are left out: their label is known.
    """
    decided = candidates.join(decisions.select(*_PAIR, "state", "call_id", by="judge"), on=_PAIR, how="left")
    if decided["state"].has_nulls():
        raise ValueError(
            f"sample: a decision for each of {decided.height} candidates expected, "
            f"{decided['state'].null_count()} have none; decide them first"
        )
    decided = decided.filter(pl.col("by") != SOURCE_JUDGE).drop("by")
    asked = pl.when(pl.col("call_id").is_not_null()).then(pl.lit("asked")).otherwise(pl.lit("not_asked"))
    return decided.with_columns(stratum=pl.concat_str("dataset", "state", asked, separator="/"))


def as_sample(pairs: pl.DataFrame, relevant: str, seed: int = 0) -> Sample:
    """Return pairs with their labels as a sample, for estimates; its rows are in the order of the pairs.

    Similar strata are numbered one after the other, as small ones are merged with their neighbours: the same state of
    several datasets, by the share that is labelled.

    Args:
        pairs: dataset, query_id, `stratum` (from `with_strata`) and a boolean column, null where there is no label.
            Instead of the ids, `query` may have numbers in the same order; `pairs` may say how many pairs without a
            label a row stands for.
        relevant: the name of the boolean column.
        seed: seed of the intervals.
    """
    query = pl.col("query") if "query" in pairs.columns else pl.struct("dataset", "query_id")
    size = pl.col("pairs").sum() if "pairs" in pairs.columns else pl.len()
    order = (
        pairs.group_by("stratum")
        .agg(share=pl.col(relevant).count() / size)
        .with_columns(kind=pl.col("stratum").str.extract(r"([^/]*/[^/]*)$"))
        .sort("kind", "share", "stratum")
        .select("stratum", number=pl.int_range(pl.len()))
    )
    return Sample(
        pairs.select("stratum").join(order, on="stratum", how="left", maintain_order="left")["number"].to_numpy(),
        pairs.select(query.rank("dense").cast(pl.Int64) - 1).to_series().to_numpy(),
        pairs[relevant].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        seed,
        pairs["pairs"].cast(pl.Float64).to_numpy() if "pairs" in pairs.columns else None,
    )


class Queries:
    """Numbers the queries of tables that come in parts; each query is in one part. The ids are kept once."""

    def __init__(self) -> None:
        self._named: list[pl.DataFrame] = []
        self._next = 0

    def number(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Add the number `query` to pairs with dataset and query_id, of a part that was not numbered before."""
        named = pairs.select(_PAIR[:2]).unique().sort(_PAIR[:2])
        named = named.with_columns(query=pl.int_range(self._next, self._next + pl.len(), dtype=pl.Int64))
        self._named.append(named)
        self._next += named.height
        return pairs.join(named, on=_PAIR[:2], how="left", maintain_order="left")

    def in_order(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Replace `query` by numbers in the order of dataset and query_id."""
        if not self._named:
            return pairs
        place = pl.concat(self._named).sort(_PAIR[:2]).select("query", place=pl.int_range(pl.len(), dtype=pl.Int64))
        placed = place.sort("query")["place"]
        return pairs.with_columns(query=placed.gather(pairs["query"]))


def _shortlist(config: SampleConfig, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs of each stratum with the smallest hashes, and their hashes."""
    hashed = pairs.with_columns(_hashes(pairs, f"draw {config.seed}")).sort("stratum", "hash")
    return hashed.filter(pl.int_range(pl.len()).over("stratum") < config.size)


def _allotted(config: SampleConfig, strata: pl.DataFrame) -> pl.DataFrame:
    """Return how many pairs are drawn from each stratum, and the chance that this gives a pair."""
    sizes = dict(strata.group_by("stratum").agg(pl.col("pairs").sum()).sort("stratum").iter_rows())
    return pl.DataFrame(
        [(stratum, share, share / sizes[stratum]) for stratum, share in _allot(sizes, config.size).items()],
        schema={"stratum": pl.String, "allotted": pl.Int64, "inclusion_probability": pl.Float64},
        orient="row",
    )


def _choose(config: SampleConfig, shortlisted: pl.DataFrame, strata: pl.DataFrame) -> pl.DataFrame:
    """Choose from each stratum the pairs with the smallest hashes, as many as are allotted to it."""
    return (
        shortlisted.sort("stratum", "hash")
        .join(_allotted(config, strata), on="stratum", maintain_order="left")
        .filter(pl.int_range(pl.len()).over("stratum") < pl.col("allotted"))
    )


def _allot(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Divide `total` equally among the strata. If a stratum is too small, the others get the rest of its share.

    >>> _allot({"a": 10, "b": 1, "c": 10}, 8)
    {'a': 3, 'b': 1, 'c': 4}
    """
    shares = {}
    left = total
    for done, stratum in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        shares[stratum] = min(sizes[stratum], left // (len(sizes) - done))
        left -= shares[stratum]
    return dict(sorted(shares.items()))


def _hashes(pairs: pl.DataFrame, salt: str) -> pl.Series:
    """Hash the texts of each pair, and its ids, which differ between copies of a text."""
    rows = pairs.select(*_TEXTS, *_PAIR).iter_rows()
    return pl.Series("hash", [combine_hashes([salt, *row]) for row in rows], dtype=pl.String)


def _shown(config: SampleConfig, pairs: pl.DataFrame) -> pl.DataFrame:
    """Add the texts as the sheet shows them, and `place`, by which it is ordered: the draw's hash groups the strata."""
    shown = {
        "passage": [clip(text, config.passage_chars) for text in pairs["passage"]],
        "positives": [clip(_BETWEEN_POSITIVES.join(texts), config.positives_chars) for texts in pairs["positives"]],
    }
    return pairs.with_columns(_hashes(pairs, f"order {config.seed}").alias("place")).with_columns(
        pl.Series(name, texts, dtype=pl.String) for name, texts in shown.items()
    )


def _sheet(shown: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the sheet, in their places."""
    return (
        shown.sort("place", *_PAIR)
        .select(*_PAIR, "query", "positives", "passage", label=pl.lit(""), comment=pl.lit(""))
        .with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))
    )
