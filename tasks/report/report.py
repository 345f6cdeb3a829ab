"""Write the report page: what a curation found, what it cost, and whether it improved the model.

The page is one file without scripts or external resources. The same tables give the same bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import clip, duration, percent, printable, signed
from tasks.guards.figures import Guarded, sum_up_guards
from tasks.rejects import count_left_out
from tasks.report import plots
from tasks.report.beyond import sum_up_windows
from tasks.report.calibration import in_summary, sum_up_calibration
from tasks.report.checks import LabelChecks, sum_up_checks
from tasks.report.comparison_plots import plot_differences, plot_forest
from tasks.report.data_figures import NAMES, sum_up_data, table_of_rejects
from tasks.report.examples import choose_queries, pick_examples
from tasks.report.guarantee import sum_up_guarantee
from tasks.report.shared_errors import CommonErrors, find_common_errors, say_passed_on
from tasks.report.summary import (
    CASCADE,
    MODELS,
    NDCG,
    Figures,
    add_up_calls,
    conclude,
    count_figures,
    say_people,
    share_interval,
)
from tasks.schemas import KNOWN, PEOPLE, VERDICT_STATES
from tasks.training.evaluate import ALL_DATASETS, Comparison, compare

PAGE_FILE = "report.html"
SUMMARY_FILE = "summary.json"
TIERS = {"similarity": "Similarity", "llm": "Language model", CASCADE: "All, decided"}
STATE_NAMES = {"relevant": "relevant", "not_relevant": "not relevant", "unsure": "unsure", "unparsed": "unparsed"}

_SCORED = ("relevant", "unsure", "not_relevant")  # an unparsed verdict has no score
_BINS = 25
_MOST_DOTS = 4_000  # of a plot; each takes 75 bytes of the page
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_VERDICT = [*_PAIR, "tier", "state", "score"]  # what the page shows of a verdict


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
    counts: pl.DataFrame
    known: pl.DataFrame
    people: pl.DataFrame
    tiers: tuple[str, ...]

    @property
    def verdicts(self) -> dict[str, pl.DataFrame]:
        first, said, last = (frame.select(_VERDICT) for frame in (self.similarity, self.llm_verdicts, self.decisions))
        asked = {tier: said.filter(pl.col("tier") == tier) for tier in self.tiers}
        return {"similarity": first, **asked, CASCADE: last}

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
    calls: pl.DataFrame | Iterable[pl.DataFrame],
    decisions: pl.DataFrame,
    agreement: pl.DataFrame,
    edits: pl.DataFrame,
    scores: pl.DataFrame,
    rejects: pl.DataFrame,
    costs: pl.DataFrame,
    counts: pl.DataFrame,
    lengths: pl.DataFrame,
    out: Path,
    known: pl.DataFrame | None = None,
    windows: pl.DataFrame | None = None,
    people: pl.DataFrame | None = None,
    guarantee: pl.DataFrame | None = None,
    calibration: Path | None = None,
    positive_checks: pl.DataFrame | None = None,
    query_checks: pl.DataFrame | None = None,
    guards: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Write `report.html` and `summary.json` below `out`. Any table may be empty; the page says what is missing.

    `passages` are at least those of the examples, `lengths` of all candidates. `edits` are of the treatment `relabel`.
    `calls` may come in frames. `known` only marks the examples. `windows` says which part of a passage a verdict rests
    on. `calibration` is the folder of the calibration that decided. The other optional ones are passed where there is
    something to show.
    """
    tables = _Tables(
        queries=queries,
        passages=passages,
        positives=positives,
        candidates=candidates,
        similarity=similarity,
        llm_verdicts=llm_verdicts,
        calls=add_up_calls(calls),
        decisions=decisions,
        agreement=agreement,
        edits=edits,
        scores=scores,
        rejects=rejects,
        costs=costs,
        counts=counts,
        known=KNOWN.empty() if known is None else known,
        people=PEOPLE.empty() if people is None else people,
        tiers=config.tiers,
    )
    figures, comparisons = _count(tables), compare(scores)
    conclusions = [*conclude(figures, comparisons), *say_people(tables.people)]
    (common, warnings), guarded = _look_at_judges(config, tables, lengths), sum_up_guards(guards, figures.passages)
    left_out, data = count_left_out(rejects, config.rows_read, config.rows_kept), sum_up_data(counts, rejects)
    places = [] if windows is None else sum_up_windows(windows, llm_verdicts, config.reads)
    reached = sum_up_guarantee(guarantee, tables.calls, llm_verdicts, tables.people)
    fitted, checks = sum_up_calibration(calibration, config.decided), _checks(positive_checks, query_checks)
    said = {"conclusions": conclusions, "left_out": left_out, "data": data, "data_names": NAMES, "warnings": warnings}
    said |= {"calibration": fitted, "windows": places, "common": common, "guarantee": reached, "checks": checks}
    page = _render(config, _context(config, tables, figures, comparisons) | said | {"guards": guarded})
    summary = {**figures.as_dict(), "tiers": agreement.to_dicts(), "conclusions": conclusions, "warnings": warnings}
    summary |= {"rejects": left_out.as_dict(), "data": data, "windows": places} | in_summary(fitted) | common.as_json()
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


def _checks(positives: pl.DataFrame | None, queries: pl.DataFrame | None) -> LabelChecks | None:
    return None if positives is None or queries is None else sum_up_checks(positives, queries)


def _look_at_judges(config: ReportConfig, tables: _Tables, lengths: pl.DataFrame) -> tuple[CommonErrors, list[str]]:
    """Find the errors that judges have in common, and what to beware of."""
    judges = {tier: verdicts for tier, verdicts in tables.verdicts.items() if tier != CASCADE}
    common = find_common_errors(
        judges,
        candidates=tables.candidates,
        decisions=tables.decisions,
        lengths=lengths,
        known=tables.known,
    )
    return common, [*config.kinship, *say_passed_on(judges, config.warn_shares), *common.sentences]


def _count(tables: _Tables) -> Figures:
    return count_figures(
        queries=tables.queries,
        counts=tables.counts,
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
        "printable": printable,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "clip": lambda text: clip(text, config.example_chars),
        "duration": duration,
    }
    return environment.get_template("report.html.jinja").render(context)


def _context(
    config: ReportConfig, tables: _Tables, figures: Figures, comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return the variables of the template that describe judging and training."""
    seconds = dict(tables.costs.select("stage", "seconds").iter_rows())
    chosen = pl.col("query_id").is_in([query for _, query in choose_queries(tables.edits, config.examples)])
    return {
        "config": config,
        "figures": figures,
        "state_names": STATE_NAMES,
        "tier_names": {tier: _name(tier) for tier in tables.verdicts},
        "models": [name for name in MODELS if figures.mean(name) is not None],
        "datasets": _datasets(config, tables),
        "per_query": _per_query(config, tables),
        "distributions": {tier: _ridges(tier, verdicts) for tier, verdicts in tables.verdicts.items()},
        **_scatter(tables),
        "tiers": _tiers(tables, seconds),
        "stages": sorted(tables.costs.to_dicts(), key=lambda row: (-(row["seconds"] or 0), row["stage"])),
        "measures": _measures(tables.scores),
        "comparisons": comparisons,
        "forest": plot_forest(comparisons),
        "differences": plot_differences(tables.scores),
        "examples": pick_examples(
            queries=tables.queries,
            passages=tables.passages,
            positives=tables.positives,
            verdicts=pl.concat(frame.filter(chosen) for frame in tables.verdicts.values()),
            edits=tables.edits,
            known=tables.known,
            limit=config.examples,
        ),
        "rejects": table_of_rejects(tables.rejects),
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
        row["interval"] = share_interval(tables.decisions.filter(pl.col("dataset") == row["dataset"]))
        row["found"] = found.get(row["dataset"], 0)
    return rows


def _per_query(config: ReportConfig, tables: _Tables) -> Markup | None:
    """Plot how many queries have how many false negatives (distinct texts), with the limit of the treatment."""
    if tables.decisions.is_empty():
        return None
    relevant = tables.decisions.filter(pl.col("state") == "relevant").select(_PAIR)
    relevant = relevant.join(tables.candidates.select(*_PAIR, "text_hash"), on=_PAIR, how="left")
    found = relevant.group_by(_QUERY).agg(relevant=pl.col("text_hash").n_unique())
    without = tables.decisions.select(_QUERY).n_unique() - found.height
    numbers = {0: without} if without else {}
    numbers |= dict(found["relevant"].value_counts().sort("relevant").iter_rows())
    cut = config.max_false_negatives
    return plots.counts(
        numbers,
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


def _scatter(tables: _Tables) -> dict[str, Markup | str | None]:
    """Plot what similarity and the last tier say of pairs that both judged; of many, every second, third, … one."""
    last = tables.llm_verdicts.filter(pl.col("tier") == (tables.tiers[-1] if tables.tiers else ""))
    both = (
        tables.similarity.select(*_PAIR, x="score")
        .join(last.select(*_PAIR, y="score"), on=_PAIR)
        .join(tables.decisions.select(*_PAIR, "state"), on=_PAIR)
        .drop_nulls(["x", "y"])
        .sort("state", *_PAIR)
    )
    if both.is_empty():
        return {"agreement_plot": None}
    shown = both.gather_every(math.ceil(both.height / _MOST_DOTS))
    dots = [plots.Dot(x, y, state) for x, y, state in shown.select("x", "y", "state").iter_rows()]
    label = f"Similarity against language model for {len(dots)} candidates judged by both"
    plot = plots.scatter(dots, label=label, x_title="similarity", y_title="language model")
    note = "" if len(dots) == both.height else f" {len(dots):,} of {both.height:,} are drawn."
    return {"agreement_plot": plot, "agreement_note": note}


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
