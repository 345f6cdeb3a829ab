"""Count the figures of a curation, for page, terminal and JSON, and describe them in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.formatting import percent, signed
from tasks.schemas import VERDICT_STATES
from tasks.statistics import wilson
from tasks.training.evaluate import Comparison

CASCADE = "cascade"
NDCG = "nDCG@10"
TREATED = ("default", "relabel")
MODELS = ("base", *TREATED)

_QUERY = ["dataset", "query_id"]


@dataclass(frozen=True)
class Figures:
    """The figures of a curation.

    states: number of decisions by state, for all four states.
    found: candidates that were relabelled as positives. They are fewer than the relevant ones if a query was dropped,
        or if a text has several ids.
    known, known_found: candidates known in advance to be false negatives, and those of them that the cascade found.
    means: mean score by (measure, model), over the held-out queries.
    """

    queries: int
    training_queries: int
    test_queries: int
    passages: int
    candidates: int
    states: Mapping[str, int]
    queries_with_relevant: int
    found: int
    removed: int
    dropped: int
    known: int
    known_found: int
    llm_pairs: int
    llm_calls: int
    prompt_tokens: int
    output_tokens: int
    rejected: int
    seconds: float
    evaluated_queries: int
    means: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def relevant(self) -> int:
        """Return the number of candidates decided to be relevant: the false negatives."""
        return self.states["relevant"]

    @property
    def share(self) -> float | None:
        """Return the share of false negatives among the candidates; None without candidates."""
        return self.relevant / self.candidates if self.candidates else None

    @property
    def share_interval(self) -> tuple[float, float]:
        """Return Wilson's 95% interval of the share, with pairs treated as independent."""
        return wilson(self.relevant, self.candidates)

    @property
    def recall(self) -> float | None:
        """Return the share of the known false negatives that the cascade found; None if none is known."""
        return self.known_found / self.known if self.known else None

    @property
    def recall_interval(self) -> tuple[float, float]:
        """Return Wilson's 95% interval of the recall."""
        return wilson(self.known_found, self.known)

    @property
    def llm_share(self) -> float | None:
        """Return the share of the candidates that an LLM was asked about; None without candidates."""
        return self.llm_pairs / self.candidates if self.candidates else None

    def mean(self, model: str, measure: str = NDCG) -> float | None:
        """Return the mean score of a model; None if it was not evaluated."""
        return self.means.get((measure, model))

    def as_dict(self) -> dict[str, Any]:
        """Return the figures that the terminal prints and scripts read."""
        return {
            "queries": self.queries,
            "passages": self.passages,
            "candidates": self.candidates,
            "verdicts": dict(self.states),
            "known_false_negatives": self.known,
            "known_found": self.known_found,
            "found": self.found,
            "llm_calls": self.llm_calls,
            "ndcg10": {model: _rounded(self.mean(model)) for model in TREATED},
        }


def count_figures(  # noqa: PLR0913 - tables by name
    *,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    candidates: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    calls: pl.DataFrame,
    decisions: pl.DataFrame,
    agreement: pl.DataFrame,
    edits: pl.DataFrame,
    scores: pl.DataFrame,
    rejects: pl.DataFrame,
    costs: pl.DataFrame,
) -> Figures:
    """Count the figures of a curation from its tables; any table may be empty."""
    states = dict(decisions.group_by("state").len().iter_rows())
    known, known_found = _known(agreement)
    edited = dict(edits.group_by("to").len().iter_rows())
    return Figures(
        queries=queries.height,
        training_queries=queries.filter(pl.col("split") == "train").height,
        test_queries=queries.filter(pl.col("split") == "test").height,
        passages=passages.height,
        candidates=candidates.height,
        states={state: states.get(state, 0) for state in VERDICT_STATES},
        queries_with_relevant=decisions.filter(pl.col("state") == "relevant").select(_QUERY).n_unique(),
        found=edited.get("positive", 0),
        removed=edited.get("removed", 0),
        dropped=edits.filter(pl.col("to") == "dropped").select(_QUERY).n_unique(),
        known=known,
        known_found=known_found,
        llm_pairs=llm_verdicts.select(*_QUERY, "doc_id").n_unique(),
        llm_calls=calls.height,
        prompt_tokens=int(calls["prompt_tokens"].sum()),
        output_tokens=int(calls["output_tokens"].sum()),
        rejected=rejects.height,
        seconds=float(costs["seconds"].sum()),
        evaluated_queries=scores.select(_QUERY).n_unique(),
        means=_means(scores),
    )


def summarise(**tables: pl.DataFrame) -> dict[str, Any]:
    """Return the figures that the terminal and the JSON line show. The tables are those of `count_figures`."""
    return count_figures(**tables).as_dict()


def conclude(figures: Figures, comparisons: Sequence[Comparison]) -> list[str]:
    """Return the conclusions, one sentence each: what was found, missed and spent, and what was not measured."""
    return [
        _say_found(figures),
        _say_trust(figures),
        _say_cost(figures),
        _say_training(comparisons),
        *_say_losses(figures),
    ]


def say_people(people: pl.DataFrame) -> list[str]:
    """Return a sentence on the pairs that people decided and how far the cascade agrees; empty without labels.

    `people` is a table of `tasks.schemas.PEOPLE`.
    """
    found = people.filter(pl.col("tier") == CASCADE).to_dicts()
    if not found:
        return []
    row = found[0]
    said = (
        f"People decided {row['labelled']:,} of the pairs; on {row['contradicted']:,} of them the judges had said the "
        f"opposite, and people were unsure of {row['unsure']:,}."
    )
    if row["kappa"] is None or row["kappa_low"] is None:
        return [f"{said} Too few of them were drawn by lot to measure the judges by."]
    figures = [f"kappa {row['kappa']:.2f} ({row['kappa_low']:.2f} to {row['kappa_high']:.2f})"]
    for name in ("precision", "recall"):
        if row[name] is not None:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            figures.append(f"{name} {percent(row[name])} ({percent(low)} to {percent(high)})")
    return [f"{said} The judges’ own decisions, against people’s: {', '.join(figures)}, 95% intervals."]


def _say_found(figures: Figures) -> str:
    if not figures.candidates:
        return "Nothing was judged: there are no candidates."
    low, high = figures.share_interval
    return (
        f"{figures.relevant:,} of {figures.candidates:,} candidates ({percent(figures.relevant / figures.candidates)}, "
        f"95% interval {percent(low)} to {percent(high)}) were judged to be false negatives; they belong to "
        f"{figures.queries_with_relevant:,} of {figures.training_queries:,} training queries, and {figures.found:,} "
        "were relabelled as positives."
    )


def _say_trust(figures: Figures) -> str:
    if figures.recall is None:
        return (
            "How many were missed was not measured: no false negatives are known beforehand. "
            "Label the sample sheet to learn precision and recall."
        )
    low, high = figures.recall_interval
    return (
        f"Of {figures.known:,} false negatives known beforehand the cascade found {figures.known_found:,} "
        f"({percent(figures.recall)}, 95% interval {percent(low)} to {percent(high)})."
    )


def _say_cost(figures: Figures) -> str:
    if not figures.llm_pairs:
        return "No language model was asked: similarity alone decided."
    return (
        f"The language model was asked about {figures.llm_pairs:,} candidates ({percent(figures.llm_share or 0)}) in "
        f"{figures.llm_calls:,} calls and read {figures.prompt_tokens:,} tokens; the rest was left to similarity."
    )


def _say_training(comparisons: Sequence[Comparison]) -> str:
    found = next((c for c in comparisons if c.measure == NDCG), None)
    if found is None:
        return "Retraining was not evaluated, so whether the new labels help a model is not known."
    if found.low is None or found.high is None:
        return (
            f"{NDCG} differs by {signed(found.difference)} on {found.queries:,} held-out queries, on each alike: no "
            "interval can be given."
        )
    span = f"({signed(found.low)} to {signed(found.high)}, 95%, {found.queries:,} held-out queries)"
    if not found.is_clear:
        return (
            f"No difference in {NDCG} between training on the relabelled and on the default data could be shown: "
            f"{signed(found.difference)} {span}."
        )
    verb = "raised" if found.difference > 0 else "lowered"
    return (
        f"Training on the relabelled instead of the default data {verb} {NDCG} by {abs(found.difference):.3f} {span}."
    )


def _say_losses(figures: Figures) -> list[str]:
    said = []
    if figures.states["unparsed"]:
        said.append(
            f"{figures.states['unparsed']:,} candidates have no verdict because the answer could not be read; "
            "they count neither as relevant nor as not relevant."
        )
    if figures.dropped:
        subject = "1 query was" if figures.dropped == 1 else f"{figures.dropped:,} queries were"
        said.append(f"{subject} dropped whole, having too many false negatives to be clear.")
    return said


def _known(agreement: pl.DataFrame) -> tuple[int, int]:
    cascade = agreement.filter(pl.col("tier") == CASCADE)
    return (cascade["known"][0], cascade["known_found"][0]) if cascade.height else (0, 0)


def _means(scores: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Return the mean over queries of the mean over seeds, by (measure, model)."""
    per_query = scores.group_by("measure", "model", *_QUERY).agg(pl.col("value").mean()).sort(pl.all())
    means = per_query.group_by("measure", "model", maintain_order=True).agg(pl.col("value").mean())
    return {(measure, model): value for measure, model, value in means.iter_rows()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
