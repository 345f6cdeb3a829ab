"""What the report says of scores with labels that judges completed, beside those with the labels alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from tasks.evaluation.pool import JUDGED
from tasks.schemas import VERDICT_STATES
from tasks.training.evaluate import ALL_DATASETS, MEASURES, Comparison, compare

CAUTION = (
    "The judges that complete the labels here are those that decided the labels of the training data. A model that "
    "was trained on what a judge relabelled tends to find what this judge calls relevant, also where the judge is "
    "wrong. So the scores with the judges' labels favour the treatments by verdicts, and alone they prove no gain."
)
_SETS = ("labelled", "completed")
_QUERY = ["dataset", "query_id"]


@dataclass(frozen=True)
class Line:
    """One measure: the mean of each model by both sets of labels, and the difference of the two that are compared.

    means: by model, with the labels alone and with the completed ones; of all queries.
    labelled, completed: the comparison by each set; None where the two models are not both there.
    """

    measure: str
    means: Mapping[str, tuple[float, float]]
    labelled: Comparison | None
    completed: Comparison | None


@dataclass(frozen=True)
class CompletedLabels:
    """Both sets of scores side by side, and what the judges said.

    depth: of the rankings that were put to them. queries: with a pair that they were asked about. states: of the
    pairs.
    """

    depth: int | None
    queries: int
    states: Mapping[str, int]
    models: tuple[str, ...]
    lines: tuple[Line, ...]
    caution: str = CAUTION

    @property
    def pairs(self) -> int:
        """How many unlabelled pairs were put to the judges."""
        return sum(self.states.values())

    def as_json(self) -> dict[str, Any]:
        """Return what summary.json holds."""
        measures = {
            line.measure: {model: dict(zip(_SETS, means, strict=True)) for model, means in line.means.items()}
            for line in self.lines
        }
        compared = {
            line.measure: {name: _as_json(getattr(line, name)) for name in _SETS}
            for line in self.lines
            if line.labelled is not None
        }
        asked = {"depth": self.depth, "queries": self.queries, "pairs": self.pairs, "states": dict(self.states)}
        return {**asked, "measures": measures, "comparisons": compared, "caution": self.caution}


def sum_up_completed(
    labelled: pl.DataFrame | None,
    completed: pl.DataFrame | None,
    decisions: pl.DataFrame | None,
    *,
    depth: int | None,
    pair: tuple[str, str],
) -> CompletedLabels | None:
    """Put both sets of scores side by side; None where judges completed no labels.

    pair: the two models that the report compares, baseline first.
    """
    if labelled is None or completed is None or decisions is None:
        return None
    means = {name: _means(frame) for name, frame in zip(_SETS, (labelled, completed), strict=True)}
    compared = {name: _compared(frame, pair) for name, frame in zip(_SETS, (labelled, completed), strict=True)}
    models = tuple(labelled["model"].unique().sort())
    lines = tuple(
        Line(
            measure,
            {model: (means["labelled"][model, measure], means["completed"][model, measure]) for model in models},
            compared["labelled"].get(measure),
            compared["completed"].get(measure),
        )
        for measure in _ordered(labelled["measure"].unique().to_list())
    )
    found = dict(decisions["state"].value_counts().iter_rows())
    states = {state: int(found.get(state, 0)) for state in VERDICT_STATES}
    return CompletedLabels(depth, decisions.select(_QUERY).n_unique(), states, models, lines)


def _means(scores: pl.DataFrame) -> dict[tuple[str, str], float]:
    found = scores.group_by("model", "measure").agg(pl.col("value").mean())
    return {(model, measure): float(value) for model, measure, value in found.iter_rows()}


def _compared(scores: pl.DataFrame, pair: tuple[str, str]) -> dict[str, Comparison]:
    """Compare two models over all queries, by measure."""
    return {one.measure: one for one in compare(scores, *pair) if one.dataset == ALL_DATASETS}


def _ordered(measures: list[str]) -> list[str]:
    """Sort measures: the usual ones first, the share of labelled passages last."""
    usual = [name for name in MEASURES if name in measures]
    return [*usual, *sorted(set(measures) - {*usual, JUDGED}), *({JUDGED} & set(measures))]


def _as_json(found: Comparison | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
