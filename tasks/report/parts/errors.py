"""Count, in one query part, where two judges are wrong together, by everybody whose labels may count in the end.

Whose labels the report goes by depends on all parts: people's if they labelled enough pairs, else what is known, else
the last tier that decides anything. So each part counts by all of them.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import polars as pl

from tasks.agreement import SURE
from tasks.report.parts.tallies import tally
from tasks.schemas import HUMAN_JUDGE, SOURCE_JUDGE
from tasks.summaries import ERRORS, ERRORS_BY_QUERY
from tasks.verdicts.pairs import PAIR
from tasks.verdicts.shared_errors import ALL, kinds_of_pairs, wrong_by_query

PEOPLE, KNOWN = "people", "known"
LABELS = "labels"
_RELEVANT = pl.col("state") == "relevant"


def count_errors(
    judges: Mapping[str, pl.DataFrame],
    *,
    candidates: pl.DataFrame,
    decisions: pl.DataFrame,
    lengths: pl.DataFrame,
    known: pl.DataFrame,
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Count the errors of each two judges, over all pairs and by kind of pair.

    Args:
        judges: VERDICTS by judge, in the order asked.
        candidates: a table of CANDIDATES.
        decisions: VERDICTS; people's labels are those whose judge is `human:<n>`.
        lengths: a table of LENGTHS.
        known: a table of KNOWN. They are all relevant, so by them only misses are seen.

    Returns:
        ERRORS_BY_QUERY; and tallies `labels`: pairs that are labelled, by whom.
    """
    kinds = kinds_of_pairs(candidates, decisions, lengths)
    labels = dict(_labels(judges, candidates, decisions, known))
    tallies = [tally(LABELS, labels[name].height, name) for name in (PEOPLE, KNOWN)]
    read = {name: said.filter(pl.col("state") != "unparsed").select(*PAIR, _RELEVANT) for name, said in judges.items()}
    found = [ERRORS_BY_QUERY.empty()]
    for by, truth in labels.items():
        described = truth.join(kinds, on=PAIR, how="left")
        for first, second in combinations([name for name in judges if labels_of(name) != by], 2):
            both = described
            for column, judge in (("first", first), ("second", second)):
                both = both.join(read[judge].rename({"state": column}), on=PAIR)
            named = {"by": pl.lit(by), "first": pl.lit(first), "second": pl.lit(second)}
            found.append(_by_kind(both).with_columns(**named).select(*ERRORS_BY_QUERY.columns))
    return pl.concat(found), tallies


def _labels(
    judges: Mapping[str, pl.DataFrame], candidates: pl.DataFrame, decisions: pl.DataFrame, known: pl.DataFrame
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield whose labels may count, and the pairs with `relevant`. A tier is measured by only if two come before it."""
    by_people = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:") & (pl.col("judge") != SOURCE_JUDGE)
    yield PEOPLE, decisions.filter(by_people, pl.col("state").is_in(SURE)).select(*PAIR, relevant=_RELEVANT)
    found = candidates.join(known.select(PAIR).unique(), on=PAIR, how="semi")
    yield KNOWN, found.select(*PAIR, relevant=pl.lit(True))
    for name in list(judges)[2:]:
        read = judges[name].filter(pl.col("state") != "unparsed")
        yield labels_of(name), read.select(*PAIR, relevant=_RELEVANT)


def labels_of(tier: str) -> str:
    """Name the labels that are a tier's verdicts, in the column `by`."""
    return f"tier {tier}"


def _by_kind(both: pl.DataFrame) -> pl.DataFrame:
    """Count the queries by `ERRORS`: of all pairs, then of the pairs of each kind."""
    columns = [name for name in both.columns if name not in (*PAIR, "relevant", "first", "second")]
    counted = [wrong_by_query(both).with_columns(kind=pl.lit(ALL), value=pl.lit(ALL))]
    for column in columns:
        counts = wrong_by_query(both.drop_nulls(column), [column])
        counted.append(counts.select(pl.exclude(column), kind=pl.lit(column), value=pl.col(column)))
    every = pl.concat(counted).group_by("kind", "value", *ERRORS).agg(queries=pl.len().cast(pl.Int64))
    return every.sort("kind", "value", *ERRORS)
