"""Write the report page: what a curation found, what it cost, and whether it improved the model.

The page is one file without scripts or external resources. The same tables give the same bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import percent, signed
from tasks.report import plots
from tasks.report.examples import pick_examples
from tasks.report.summary import CASCADE, MODELS, NDCG, Figures, conclude, count_figures, say_people
from tasks.schemas import KNOWN, PEOPLE, VERDICT_STATES
from tasks.statistics import wilson
from tasks.training.evaluate import ALL_DATASETS, Comparison, compare, paired_differences

PAGE_FILE = "report.html"
SUMMARY_FILE = "summary.json"
TIERS = {"similarity": "Similarity", "llm": "Language model", CASCADE: "All, decided"}
STATE_NAMES = {"relevant": "relevant", "not_relevant": "not relevant", "unsure": "unsure", "unparsed": "unparsed"}

_SCORED = ("relevant", "unsure", "not_relevant")  # an unparsed verdict has no score
_BINS = 25
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
# Characters that HTML does not allow or does not show: control characters, lone surrogates, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class ReportConfig(BaseModel):
    """What the page shows in addition to the tables.

    title: the title; set by the flow. configuration: the configuration as YAML; set by the flow.
    command: the command to run it again; set by the flow. versions: versions of the software; set by the flow.
    max_false_negatives: the limit of the treatment, marked in the plot; set by the flow.
    tiers: the tiers apart from similarity, in the order asked; set by the flow.
    examples: number of queries shown with their texts. example_chars: the most characters of a text.
    datasets: the most datasets with a row of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Curation report"
    configuration: str = ""
    command: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    max_false_negatives: int = Field(7, ge=0)
    tiers: tuple[str, ...] = ("llm",)
    examples: int = Field(6, ge=0)
    example_chars: int = Field(480, ge=40)
    datasets: int = Field(20, ge=1)


@dataclass(frozen=True)
class _Tables:
    queries: pl.DataFrame
    passages: pl.DataFrame
    positives: pl.DataFrame
    candidates: pl.DataFrame
    similarity: pl.DataFrame
    llm_verdicts: pl.DataFrame
    calls: pl.DataFrame
    decisions: pl.DataFrame
    agreement: pl.DataFrame
    edits: pl.DataFrame
    scores: pl.DataFrame
    rejects: pl.DataFrame
    costs: pl.DataFrame
    known: pl.DataFrame
    people: pl.DataFrame
    tiers: tuple[str, ...]

    @property
    def verdicts(self) -> dict[str, pl.DataFrame]:
        asked = {tier: self.llm_verdicts.filter(pl.col("tier") == tier) for tier in self.tiers}
        return {"similarity": self.similarity, **asked, CASCADE: self.decisions}

    def calls_of(self, tier: str) -> pl.DataFrame:
        judges = self.llm_verdicts.filter(pl.col("tier") == tier).select("judge").unique()
        return self.calls.join(judges, on="judge", how="semi")


def report(  # noqa: PLR0913 - tables by name
    config: ReportConfig,
    *,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    calls: pl.DataFrame,
    decisions: pl.DataFrame,
    agreement: pl.DataFrame,
    edits: pl.DataFrame,
    scores: pl.DataFrame,
    rejects: pl.DataFrame,
    costs: pl.DataFrame,
    out: Path,
    known: pl.DataFrame | None = None,
    people: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Write `report.html` and `summary.json` below `out`. Any table may be empty; the page says what is missing.

    `edits` are those of the treatment `relabel`. `known` is used only to mark the examples. `people` is passed if
    people labelled a candidate.
    """
    tables = _Tables(
        queries=queries,
        passages=passages,
        positives=positives,
        candidates=candidates,
        similarity=similarity,
        llm_verdicts=llm_verdicts,
        calls=calls,
        decisions=decisions,
        agreement=agreement,
        edits=edits,
        scores=scores,
        rejects=rejects,
        costs=costs,
        known=KNOWN.empty() if known is None else known,
        people=PEOPLE.empty() if people is None else people,
        tiers=config.tiers,
    )
    figures = _count(tables)
    comparisons = compare(scores)
    conclusions = [*conclude(figures, comparisons), *say_people(tables.people)]
    page = _render(config, _context(config, tables, figures, comparisons) | {"conclusions": conclusions})
    (out / PAGE_FILE).write_text(page, encoding="utf-8")
    summary = {**figures.as_dict(), "tiers": agreement.to_dicts(), "conclusions": conclusions}
    if not tables.people.is_empty():
        summary["people"] = tables.people.to_dicts()
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {}


def _count(tables: _Tables) -> Figures:
    return count_figures(
        queries=tables.queries,
        passages=tables.passages,
        candidates=tables.candidates,
        llm_verdicts=tables.llm_verdicts,
        calls=tables.calls,
        decisions=tables.decisions,
        agreement=tables.agreement,
        edits=tables.edits,
        scores=tables.scores,
        rejects=tables.rejects,
        costs=tables.costs,
    )


def _render(config: ReportConfig, context: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "percent": percent,
        "signed": signed,
        "printable": _printable,
        "clip": lambda text: _clip(text, config.example_chars),
        "duration": _duration,
    }
    return environment.get_template("report.html.jinja").render(context)


def _context(
    config: ReportConfig, tables: _Tables, figures: Figures, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return all variables of the template except `conclusions`."""
    seconds = dict(tables.costs.select("stage", "seconds").iter_rows())
    return {
        "config": config,
        "figures": figures,
        "state_names": STATE_NAMES,
        "tier_names": {tier: _name(tier) for tier in tables.verdicts},
        "models": [name for name in MODELS if figures.mean(name) is not None],
        "datasets": _datasets(config, tables),
        "per_query": _per_query(config, tables),
        "distributions": {tier: _ridges(tier, verdicts) for tier, verdicts in tables.verdicts.items()},
        "agreement_plot": _scatter(tables),
        "tiers": _tiers(tables, seconds),
        "stages": sorted(tables.costs.to_dicts(), key=lambda row: (-(row["seconds"] or 0), row["stage"])),
        "measures": _measures(tables.scores),
        "comparisons": comparisons,
        "forest": _forest(comparisons),
        "differences": _differences(tables.scores),
        "examples": pick_examples(
            queries=tables.queries,
            passages=tables.passages,
            positives=tables.positives,
            verdicts=pl.concat(tables.verdicts.values()),
            edits=tables.edits,
            known=tables.known,
            limit=config.examples,
        ),
        "rejects": _rejects(tables.rejects),
        "people": tables.people.to_dicts(),
        "ndcg": NDCG,
        "all_datasets": ALL_DATASETS,
    }


def _datasets(config: ReportConfig, tables: _Tables) -> list[dict[str, Any]]:
    """Return verdicts and false negatives by dataset, the largest dataset first."""
    states = [(pl.col("state") == state).sum().alias(state) for state in VERDICT_STATES]
    rows = (
        tables.decisions.group_by("dataset")
        .agg(pl.len().alias("candidates"), pl.col("query_id").n_unique().alias("queries"), *states)
        .sort("candidates", "dataset", descending=[True, False])
        .head(config.datasets)
        .to_dicts()
    )
    found = dict(tables.edits.filter(pl.col("to") == "positive").group_by("dataset").len().iter_rows())
    for row in rows:
        row["interval"] = wilson(row["relevant"], row["candidates"])
        row["found"] = found.get(row["dataset"], 0)
    return rows


def _per_query(config: ReportConfig, tables: _Tables) -> Markup | None:
    """Plot how many queries have how many false negatives (distinct texts), with the limit of the treatment."""
    if tables.decisions.is_empty():
        return None
    judged = tables.decisions.join(tables.candidates.select(*_PAIR, "text_hash"), on=_PAIR, how="left")
    texts = pl.col("text_hash").filter(pl.col("state") == "relevant").n_unique()
    numbers = judged.group_by(_QUERY).agg(relevant=texts)["relevant"].value_counts().sort("relevant")
    cut = config.max_false_negatives
    return plots.counts(
        {int(number): int(queries) for number, queries in numbers.iter_rows()},
        label="How many queries have how many false negatives",
        x_title="false negatives of a query",
        y_title="queries",
        cut=(cut, f"more than {cut}: dropped"),
    )


def _ridges(tier: str, verdicts: pl.DataFrame) -> Markup | None:
    scored = verdicts.filter(pl.col("score").is_not_null())
    if scored.is_empty():
        return None
    rows = []
    for state in _SCORED:
        values = scored.filter(pl.col("state") == state)["score"].to_list()
        rows.append((state, STATE_NAMES[state], plots.bin_values(values, 0, 1, _BINS)))
    return plots.ridges(rows, label=f"{_name(tier)}: scores by verdict", x_title="score, P(relevant)")


def _scatter(tables: _Tables) -> Markup | None:
    """Plot the scores of similarity and of the last tier for pairs that both judged, coloured by the decision."""
    last = tables.llm_verdicts.filter(pl.col("tier") == (tables.tiers[-1] if tables.tiers else ""))
    both = (
        tables.similarity.select(*_PAIR, x="score")
        .join(last.select(*_PAIR, y="score"), on=_PAIR)
        .join(tables.decisions.select(*_PAIR, "state"), on=_PAIR)
        .drop_nulls(["x", "y"])
        .sort("state", *_PAIR)
    )
    if both.is_empty():
        return None
    dots = [plots.Dot(x, y, state) for x, y, state in both.select("x", "y", "state").iter_rows()]
    return plots.scatter(
        dots,
        label=f"Similarity against language model for {len(dots)} candidates judged by both",
        x_title="similarity",
        y_title="language model",
    )


def _tiers(tables: _Tables, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return, per tier, the number of verdicts, the cost and, if false negatives are known, precision and recall."""
    measured = {row["tier"]: row for row in tables.agreement.to_dicts()}
    stages = {"similarity": "judge_similarity", CASCADE: "decide"}
    rows: list[dict[str, Any]] = []
    for tier, verdicts in tables.verdicts.items():
        states = dict(verdicts.group_by("state").len().iter_rows())
        calls = tables.calls_of(tier)
        rows.append(
            {
                "tier": tier,
                "judged": verdicts.height,
                "states": {state: states.get(state, 0) for state in VERDICT_STATES},
                "seconds": seconds.get(stages.get(tier, f"judge-{tier}")),
                "calls": calls.height,
                "tokens": int(calls["prompt_tokens"].sum()),
                "output_tokens": int(calls["output_tokens"].sum()),
                "measured": measured.get(tier),
            }
        )
    return rows


def _name(tier: str) -> str:
    return TIERS.get(tier, tier)


def _measures(scores: pl.DataFrame) -> list[str]:
    """Return the evaluated measures, the usual ones first."""
    named = set(scores["measure"].unique())
    usual = [name for name in (NDCG, "R@100", "RR@10") if name in named]
    return [*usual, *sorted(named - set(usual))]


def _forest(comparisons: Sequence[Comparison]) -> Markup | None:
    """Plot the intervals of the differences over all queries, and those in nDCG@10 of each dataset."""
    shown = [c for c in comparisons if c.dataset == ALL_DATASETS or c.measure == NDCG]
    if not shown:
        return None
    rows = [
        plots.Interval(
            label=c.measure if c.dataset == ALL_DATASETS else f"{c.measure}, {_printable(c.dataset)}",
            detail=f"{signed(c.difference)}  [{signed(c.low)}, {signed(c.high)}]"
            if c.low is not None and c.high is not None
            else signed(c.difference),
            value=c.difference,
            low=c.low,
            high=c.high,
            is_clear=c.is_clear,
        )
        for c in shown
    ]
    return plots.intervals(
        rows,
        label="Difference of relabel and default with 95% intervals: "
        + "; ".join(f"{row.label} {row.detail}" for row in rows),
        x_title="difference, relabel minus default",
    )


def _differences(scores: pl.DataFrame) -> Markup | None:
    """Plot a histogram of the differences in nDCG@10 per query."""
    values = paired_differences(scores).filter(pl.col("measure") == NDCG)["difference"].to_list()
    if not values:
        return None
    reach = max(0.1, *(abs(value) for value in values))
    edge = next(limit for limit in (0.1, 0.2, 0.5, 1.0) if reach <= limit + 1e-9)
    return plots.histogram(
        plots.bin_values(values, -edge, edge, _BINS),  # an odd number of bins: the middle one contains zero
        label=f"How much {NDCG} of a query changes from default to relabel",
        x_title=f"change in {NDCG} of a query",
        y_title="queries",
    )


def _rejects(rejects: pl.DataFrame) -> list[dict[str, Any]]:
    """Count rejects by stage and reason, with the first key and detail as an example."""
    return (
        rejects.sort("stage", "reason", "key")
        .group_by("stage", "reason", maintain_order=True)
        .agg(pl.len().alias("rows"), pl.col("key").first(), pl.col("detail").first())
        .to_dicts()
    )


def _printable(text: str) -> str:
    """Replace characters that HTML does not allow. The template escapes all others."""
    return _UNPRINTABLE.sub("\ufffd", text)


def _clip(text: str, length: int) -> str:
    """Cut a long text after a word and mark the cut."""
    if len(text) <= length:
        return text
    end = text.rfind(" ", length // 2, length + 1)
    return text[: end if end > 0 else length].rstrip() + " […]"


def _duration(seconds: float | None) -> str:
    """Format a duration in seconds for people.

    >>> _duration(0.04), _duration(7.21), _duration(75), _duration(4020)
    ('<0.1 s', '7.2 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds is None:
        return "–"
    if seconds < 0.1:  # noqa: PLR2004 - shorter times need no digits
        return "<0.1 s"
    if round(seconds, 1) < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour
