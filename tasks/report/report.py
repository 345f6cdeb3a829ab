"""Write the report page: what a curation found, what it cost, and whether it improved the model.

The page is one file without scripts or external resources. The same tables give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import clip, duration, percent, printable, signed
from tasks.guards.figures import Guarded, sum_up_guards
from tasks.rejects import add_up_rejects, count_left_out
from tasks.report import plots
from tasks.report.beyond import sum_up_windows
from tasks.report.calibration import in_summary, sum_up_calibration
from tasks.report.checks import LabelChecks, sum_up_checks
from tasks.report.comparison_plots import plot_differences, plot_forest
from tasks.report.data_figures import NAMES, sum_up_data, table_of_rejects
from tasks.report.examples import pick_examples
from tasks.report.guarantee import sum_up_guarantee
from tasks.report.parts.add_up import Frames, Sums, add_up
from tasks.report.parts.completed import sum_up_completed
from tasks.report.parts.scores import BINS
from tasks.report.parts.sum_up import CASCADE, DOTTED
from tasks.report.parts.tallies import DECIDED, EDITED
from tasks.report.shared_errors import CommonErrors, find_common_errors, say_passed_on
from tasks.report.summary import (
    MODELS,
    NDCG,
    RERANKERS,
    Figures,
    conclude,
    count_figures,
    say_people,
    say_rerankers,
    share_interval,
)
from tasks.schemas import COUNTS, PEOPLE, VERDICT_STATES
from tasks.training.evaluate import ALL_DATASETS, Comparison, compare
from tasks.verdicts.features import SIMILARITY

PAGE_FILE = "report.html"
SUMMARY_FILE = "summary.json"
TIERS = {"similarity": "Similarity", "llm": "Language model", CASCADE: "All, decided"}
STATE_NAMES = {"relevant": "relevant", "not_relevant": "not relevant", "unsure": "unsure", "unparsed": "unparsed"}

_SCORED = ("relevant", "unsure", "not_relevant")  # an unparsed verdict has no score


class ReportConfig(BaseModel):
    """What the page shows in addition to the tables.

    title: the title; set by the flow. configuration: the configuration as YAML; set by the flow.
    command: the command to run it again; set by the flow. versions: versions of the software; set by the flow.
    max_false_negatives: the limit of the treatment, marked in the plot; set by the flow.
    tiers: the tiers apart from similarity, in the order asked; set by the flow.
    warn_shares: by tier, the share of the pairs of the tier before above which a warning is due; set by the flow.
    kinship: warnings about judges of the miner's family; set by the flow.
    rows_read, rows_kept: rows of the source, as ingest counted them; set by the flow.
    reads: tokens that the trainer reads of a passage, or the encoder where nothing is trained; set by the flow.
    decided: the thresholds that decide, in words, where there is a calibration; set by the flow.
    pool_depth: how deep the rankings were put to the judges, where they completed labels; set by the flow.
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
    warn_shares: dict[str, float] = Field(default_factory=dict, json_schema_extra={"keyed_when_set": True})
    kinship: tuple[str, ...] = Field((), json_schema_extra={"keyed_when_set": True})
    rows_read: int | None = Field(None, json_schema_extra={"keyed_when_set": True})
    rows_kept: int | None = Field(None, json_schema_extra={"keyed_when_set": True})
    reads: int | None = Field(None, json_schema_extra={"keyed_when_set": True})
    decided: str = Field("", json_schema_extra={"keyed_when_set": True})
    pool_depth: int | None = Field(None, json_schema_extra={"keyed_when_set": True})
    examples: int = Field(6, ge=0)
    example_chars: int = Field(480, ge=40)
    datasets: int = Field(20, ge=1)


@dataclass(frozen=True)
class _Tables:
    sums: Sums
    queries: pl.DataFrame
    passages: pl.DataFrame
    positives: pl.DataFrame
    verdicts: pl.DataFrame
    edits: pl.DataFrame
    known: pl.DataFrame
    agreement: pl.DataFrame
    scores: pl.DataFrame
    rejects: pl.DataFrame
    costs: pl.DataFrame
    counts: pl.DataFrame
    people: pl.DataFrame
    tiers: tuple[str, ...]

    @property
    def judges(self) -> tuple[str, ...]:
        return (SIMILARITY, *self.tiers)


def report(  # noqa: PLR0913 - tables by name
    config: ReportConfig,
    *,
    tallies: Frames,
    verdict_scores: Frames,
    relevant: Frames,
    errors: Frames,
    dots: Frames,
    call_sums: Frames,
    edit_tallies: Frames,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    verdicts: pl.DataFrame,
    edits: pl.DataFrame,
    known: pl.DataFrame,
    agreement: pl.DataFrame,
    scores: pl.DataFrame,
    rejects: Frames,
    costs: pl.DataFrame,
    counts: Frames,
    out: Path,
    people: pl.DataFrame | None = None,
    guarantee: pl.DataFrame | None = None,
    calibration: Path | None = None,
    positive_checks: Frames | None = None,
    query_checks: Frames | None = None,
    guards: pl.DataFrame | None = None,
    ranked_labelled: pl.DataFrame | None = None,
    ranked_completed: pl.DataFrame | None = None,
    ranked_decisions: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Write `report.html` and `summary.json` below `out`. Any table may be empty; the page says what is missing.

    The tables that grow with the data come as counts of the query parts, which may come in frames: `tallies` to
    `call_sums` of `tasks.report.parts.sum_up.sum_up_verdicts`, `edit_tallies` of `sum_up_edits`, and `counts`. So may
    `rejects`, `positive_checks` and `query_checks`, of which little is kept. `queries` to `known` are those of the
    examples. `calibration` is the folder of the calibration that decided. The other optional ones are passed where
    there is something to show.
    """
    summed = {"tallies": tallies, "edit_tallies": edit_tallies, "scores": verdict_scores, "relevant": relevant}
    shown: dict[str, Any] = {"queries": queries, "passages": passages, "positives": positives, "verdicts": verdicts}
    shown |= {"edits": edits, "known": known, "agreement": agreement, "scores": scores, "costs": costs}
    tables = _Tables(
        sums=Sums.of({**summed, "errors": errors, "dots": dots, "call_sums": call_sums}),
        **shown,
        rejects=add_up_rejects(rejects),
        counts=add_up(counts, COUNTS, ("count",)),
        people=PEOPLE.empty() if people is None else people,
        tiers=config.tiers,
    )
    comparisons = compare(scores, *(figures := _count(tables)).pair)
    conclusions = [*conclude(figures, comparisons), *say_rerankers(scores), *say_people(tables.people)]
    (common, warnings), guarded = _look_at_judges(config, tables), sum_up_guards(guards, figures.passages)
    left_out = count_left_out(tables.rejects, config.rows_read, config.rows_kept)
    data, places = sum_up_data(tables.counts, tables.rejects), sum_up_windows(tables.sums, config.reads)
    reached = sum_up_guarantee(guarantee, tables.sums, tables.people)
    fitted, checks = sum_up_calibration(calibration, config.decided), _checks(positive_checks, query_checks)
    said = {"conclusions": conclusions, "left_out": left_out, "data": data, "data_names": NAMES, "warnings": warnings}
    said |= {"calibration": fitted, "windows": places, "common": common, "guarantee": reached, "checks": checks}
    ranked = (ranked_labelled, ranked_completed, ranked_decisions)
    completed = sum_up_completed(*ranked, depth=config.pool_depth, pair=figures.pair)
    said |= {"guards": guarded, "completed": completed}
    page = _render(config, _context(config, tables, figures, comparisons) | said)
    summary = {**figures.as_dict(), "tiers": agreement.to_dicts(), "conclusions": conclusions, "warnings": warnings}
    summary |= {"rejects": left_out.as_dict(), "data": data, "windows": places} | in_summary(fitted) | common.as_json()
    summary |= {} if completed is None else {"completed_labels": completed.as_json()}
    return _write(out, page, summary | _further(checks, guarded, tables.people, reached))


def _further(
    checks: LabelChecks | None, guarded: Guarded | None, people: pl.DataFrame, reached: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what the summary has only where there is something to say."""
    told: dict[str, Any] = {
        name: None if found is None else found.as_json() for name, found in (("guards", guarded), ("checks", checks))
    }
    told |= {"people": people.to_dicts() or None, "guarantee": reached}
    return {name: value for name, value in told.items() if value is not None}


def _write(out: Path, page: str, summary: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """Write both files; returns the tables of the stage, of which there are none."""
    (out / PAGE_FILE).write_text(page, encoding="utf-8")
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {}


def _checks(positives: Frames | None, queries: Frames | None) -> LabelChecks | None:
    return None if positives is None or queries is None else sum_up_checks(positives, queries)


def _look_at_judges(config: ReportConfig, tables: _Tables) -> tuple[CommonErrors, list[str]]:
    """Find the errors that judges have in common, and what to beware of."""
    common = find_common_errors(tables.judges, tables.sums)
    passed_on = say_passed_on(tables.judges, tables.sums, config.warn_shares)
    return common, [*config.kinship, *passed_on, *common.sentences]


def _count(tables: _Tables) -> Figures:
    return count_figures(
        sums=tables.sums,
        counts=tables.counts,
        agreement=tables.agreement,
        scores=tables.scores,
        rejects=tables.rejects,
        costs=tables.costs,
    )


def _render(config: ReportConfig, context: Mapping[str, Any]) -> str:
    return _templates().get_template("report.html.jinja").render(context)


@cache
def _templates() -> Environment:
    """Return the templates of the page; each is compiled once, which takes longer than to fill it in."""
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
        "printable": printable,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "clip": _clip_example,
        "duration": duration,
    }
    return environment


@pass_context
def _clip_example(context: Context, text: str) -> str:
    return clip(text, context["config"].example_chars)


def _context(
    config: ReportConfig, tables: _Tables, figures: Figures, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return the variables of the template that describe judging and training."""
    seconds = dict(tables.costs.select("stage", "seconds").iter_rows())
    tiers = (*tables.judges, CASCADE)
    return {
        "config": config,
        "figures": figures,
        "state_names": STATE_NAMES,
        "tier_names": {tier: _name(tier) for tier in tiers},
        "models": [name for name in (*MODELS, *RERANKERS) if figures.mean(name) is not None],
        "datasets": _datasets(config, tables.sums),
        "per_query": _per_query(config, tables.sums),
        "distributions": {tier: _ridges(tier, tables.sums) for tier in tiers},
        **_scatter(tables.sums),
        "tiers": _tiers(tables, seconds),
        "stages": sorted(tables.costs.to_dicts(), key=lambda row: (-(row["seconds"] or 0), row["stage"])),
        "measures": _measures(tables.scores),
        "comparisons": comparisons,
        "forest": plot_forest(comparisons, figures.pair),
        "differences": plot_differences(tables.scores, figures.pair),
        "examples": pick_examples(
            queries=tables.queries,
            passages=tables.passages,
            positives=tables.positives,
            verdicts=tables.verdicts,
            edits=tables.edits,
            known=tables.known,
            limit=config.examples,
        ),
        "rejects": table_of_rejects(tables.rejects),
        "people": tables.people.to_dicts(),
        "ndcg": NDCG,
        "all_datasets": ALL_DATASETS,
    }


def _datasets(config: ReportConfig, sums: Sums) -> list[dict[str, Any]]:
    """Return verdicts and false negatives by dataset, the largest dataset first."""
    pairs = (pl.col("pairs") * pl.col("queries")).sum()
    rows = (
        sums.relevant.group_by("dataset")
        .agg(candidates=pairs, queries=pl.sum("queries"))
        .sort("candidates", "dataset", descending=[True, False])
        .head(config.datasets)
        .to_dicts()
    )
    for row in rows:
        row |= {state: sums.count(DECIDED, row["dataset"], state) for state in VERDICT_STATES}
        row["interval"] = share_interval(sums.relevant.filter(pl.col("dataset") == row["dataset"]))
        row["found"] = sums.count(EDITED, row["dataset"], "positive")
    return rows


def _per_query(config: ReportConfig, sums: Sums) -> Markup | None:
    """Plot how many queries have how many false negatives (distinct texts), with the limit of the treatment."""
    if sums.relevant.is_empty():
        return None
    cut = config.max_false_negatives
    return plots.counts(
        dict(sums.relevant.group_by("texts").agg(pl.sum("queries")).sort("texts").iter_rows()),
        label="How many queries have how many false negatives",
        x_title="false negatives of a query",
        y_title="queries",
        cut=(cut, f"more than {cut}: dropped"),
    )


def _ridges(tier: str, sums: Sums) -> Markup | None:
    found = {state: sums.bins(tier, state) for state in VERDICT_STATES}
    if not any(found.values()):
        return None
    rows = [(state, STATE_NAMES[state], plots.bars_of(found[state], 0, 1, BINS)) for state in _SCORED]
    return plots.ridges(rows, label=f"{_name(tier)}: scores by verdict", x_title="score, P(relevant)")


def _scatter(sums: Sums) -> dict[str, Markup | str | None]:
    """Plot what similarity and the last tier say of pairs that both judged; of many, those that a hash draws."""
    total = sums.count(DOTTED)
    if not total:
        return {"agreement_plot": None}
    dots = [plots.Dot(x, y, state) for x, y, state in sums.dots.select("x", "y", "state").iter_rows()]
    label = f"Similarity against language model for {len(dots)} candidates judged by both"
    plot = plots.scatter(dots, label=label, x_title="similarity", y_title="language model")
    note = "" if len(dots) == total else f" {len(dots):,} of {total:,} are drawn."
    return {"agreement_plot": plot, "agreement_note": note}


def _tiers(tables: _Tables, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return, per tier, the number of verdicts, the cost and, if false negatives are known, precision and recall."""
    measured = {row["tier"]: row for row in tables.agreement.to_dicts()}
    stages = {SIMILARITY: "judge_similarity", CASCADE: "decide"}
    rows: list[dict[str, Any]] = []
    for tier in (*tables.judges, CASCADE):
        calls = tables.sums.calls_of(tier)
        rows.append(
            {
                "tier": tier,
                "judged": tables.sums.judged(tier),
                "states": tables.sums.states(tier),
                "seconds": seconds.get(stages.get(tier, f"judge-{tier}")),
                "calls": int(calls["calls"].sum()),
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
