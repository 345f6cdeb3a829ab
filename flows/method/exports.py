"""What the method writes: exports of the training sets, and the report.

An export reads the tables that its settings ask for. For the report, the query parts count what the page says, and one
stage writes the page from the counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.engines import tokens_read
from flows.guards import guarding
from flows.method.human_labels import without
from flows.method.losses import counted_rows
from flows.method.setup import Setup
from flows.method.tables import (
    Changes,
    Ingested,
    Judged,
    Pool,
    Treated,
    Verdicts,
    gather,
    group_parts,
    only_asked,
    union,
)
from flows.report_stages import RENDERED_ROWS
from flows.stage_names import is_of_gold
from infra.stages.runner import Runner
from infra.stages.stage import Stage
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.calibrating.combine import name_of
from tasks.data.rendering.render import render_config, rendered_formats
from tasks.data.writing.config import ExportConfig, Facts
from tasks.report.describe import DescribeConfig
from tasks.report.examples import MeasureConfig
from tasks.report.parts.sum_up import EditsConfig, SumUpConfig
from tasks.verdicts.calibration import Calibration


def export(
    run: Runner, setup: Setup, made: Judged, evidence: Mapping[str, Table], treated: Mapping[str, Treated]
) -> dict[str, Directory]:
    """Write the training set of each treatment in the configured formats, the treatments side by side.

    Of some formats the query parts write the lines before (`render`), and the export merges them.
    """
    config = with_facts(setup, setup.config.export)
    tables = wanted_tables(config, evidence)
    rendered = rendered_formats(config, tables)
    lines = _render(run, made, render_config(config, rendered), tables, treated) if rendered else {}
    others = set(config.formats) - set(rendered)
    config = config.model_copy(update={"rendered": rendered})
    calls = []
    for treatment, each in treated.items():
        inputs: dict[str, Any] = dict(lines.get(treatment, {}))
        if others:
            inputs |= {"instances": each.instances, "queries": made.data.queries, "passages": made.verdicts.texts}
            inputs |= tables
        if each.do_not_batch is not None:
            inputs["do_not_batch"] = each.do_not_batch
        calls.append(
            run.call(without(st.EXPORT, *(set(st.EXPORT.inputs) - inputs.keys())), config, label=treatment, **inputs)
        )
    return {name: written["export"] for name, written in zip(treated, run.together(calls), strict=True)}


def _render(
    run: Runner, made: Judged, config: ExportConfig, tables: Mapping[str, Table], treated: Mapping[str, Treated]
) -> dict[str, dict[str, Table]]:
    """Write the lines of each treatment, a group of query parts at a time; returns the tables by treatment."""
    groups = group_parts(made.data.queries, made.data.generations.query_parts, RENDERED_ROWS)
    wanted = {name: tables[name] for name in st.RENDER.each if name in tables and name in config.wanted()}
    calls = []
    for treatment, each in treated.items():
        inputs = {"instances": each.instances, "queries": made.data.queries, "passages": made.verdicts.texts, **wanted}
        grouped: dict[str, Any] = {name: table.grouped(groups) for name, table in inputs.items()}
        calls.append(
            run.call(without(st.RENDER, *(set(st.RENDER.inputs) - inputs.keys())), config, label=treatment, **grouped)
        )
    return dict(zip(treated, run.together(calls), strict=True))


def keep_apart(run: Runner, setup: Setup, made: Judged, treated: Treated, treatment: str) -> Treated:
    """Find the rows of a treatment that must not share a batch, if the settings ask for them."""
    config = setup.config.guards
    if config.rows == "none":
        return treated
    labels = {"positives": made.data.positives, "candidates": made.pool.candidates}
    shards = max(1, made.data.generations.queries[0])
    apart = guarding.keep_apart(run, config, treatment, treated.instances, labels, made.duplicates, shards)
    return replace(treated, do_not_batch=apart.do_not_batch, guards=apart.figures)


def list_apart(treated: Mapping[str, Treated]) -> dict[str, Table]:
    """Return the pairs of rows that must not share a batch, by treatment, where there are such tables."""
    return {name: made.do_not_batch for name, made in treated.items() if made.do_not_batch is not None}


def find_evidence(data: Ingested, pool: Pool, verdicts: Verdicts, decisions: Table) -> dict[str, Table]:
    """Gather the tables that exports may read besides the instances and their texts.

    `decisions` are the final ones. A table of the source that has no row is left out, so that it is in no key.
    """
    found = {
        "positives": data.positives,
        "negatives": pool.negatives,
        "candidates": pool.candidates,
        "decisions": decisions,
        "agreement": verdicts.agreement,
        "similarity": verdicts.similarity,
        "llm_verdicts": verdicts.llm_verdicts,
        "judged": verdicts.candidates,
    }
    of_source = {"teacher": data.teacher, "extras": data.extras}
    found |= {name: table for name, table in of_source.items() if table.rows or table.missing}
    return found | ({} if verdicts.people is None else {"people": verdicts.people})


def wanted_tables(config: ExportConfig, evidence: Mapping[str, Table]) -> dict[str, Any]:
    """Return the tables that the settings ask for, of those that the curation has."""
    return {name: table for name, table in evidence.items() if name in config.wanted()}


def with_facts(setup: Setup, config: ExportConfig, formats: tuple[str, ...] | None = None) -> ExportConfig:
    """Set the formats, if they are given, and the facts of the card if one is written."""
    config = config if formats is None else config.model_copy(update={"formats": formats})
    if "datasets" not in config.formats:
        return config
    return config.model_copy(update={"facts": Facts(curation=setup.curation, about=_about(setup))})


def _about(setup: Setup) -> dict[str, str]:
    """Say in one line each what decided the labels."""
    c = setup.config
    source = setup.read_from or c.source.path or "documentation of installed libraries"
    judges = [
        f"`{tier.judge.judge}` ({'a file' if tier.scores else tier.judge.protocol}, tier {tier.name})"
        for tier in setup.tiers
    ]
    how = c.decide.mode if setup.decided_by is None else _calibrated(setup.decided_by.calibration)
    decided = (
        f"{how}; relevant from P = {setup.decide.relevant_from:g}, not relevant below "
        f"P = {setup.decide.not_relevant_below:g}"
    )
    treated = (
        f"`relabel` and `remove_hn` leave out a query with more than {c.treat.max_false_negatives} false negatives; "
        f"`relabel` takes false negatives from the {c.treat.relabel_from}"
    )
    facts = {
        "Source": f"`{source if '://' in source else source.rstrip('/').rpartition('/')[2]}`",
        "Judges": "; ".join(["similarity of embeddings", *judges]),
        "Decision": decided,
        "Treatment": treated,
    }
    return facts | ({"Not judged": ", ".join(setup.skipped)} if setup.skipped else {})


def _calibrated(calibration: Calibration) -> str:
    """Say in a line what P(relevant) rests on."""
    source = "people" if not calibration.by_machine else f"machines ({calibration.origin.labels_from}), not of people"
    return f"P(relevant) by `{name_of(calibration)}`, fitted on {calibration.counts.labels:,} labels of {source}"


def describe(run: Runner, data: Ingested, pool: Pool) -> Table:
    """Count what queries, passages and negatives look like, part by part."""
    config = DescribeConfig()
    queries = run(
        st.DESCRIBE_QUERIES,
        config,
        queries=data.queries,
        positives=data.positives,
        candidates=pool.candidates,
        negatives=pool.negatives,
    )["counts"]
    passages = run(st.DESCRIBE_PASSAGES, config, passages=data.passages)["counts"]
    return union("counts", queries, passages)


def write_report(  # noqa: PLR0913, PLR0917 - what the page is about
    run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts, changes: Changes, scores: Table, counts: Table
) -> Directory:
    """Write the page that people read, with its summary.json."""
    c = setup.config
    facts = {**setup.page, "max_false_negatives": c.treat.max_false_negatives, "tiers": setup.judges}
    facts |= counted_rows(run.runs)
    facts |= {"warn_shares": {tier.name: tier.escalate.warn_share for tier in setup.tiers}}
    facts["reads"] = tokens_read(c.encoder) if c.train is None else c.train.max_seq_length
    calibration = None if setup.calibration is None else setup.calibration.directory
    found = {"people": verdicts.people, "guarantee": verdicts.guarantee, "calibration": calibration}
    checked = changes.checked
    found |= {
        "positive_checks": None if checked is None else checked.decisions,
        "query_checks": None if checked is None else checked.queries,
        "guards": union("guards", *changes.guards) if changes.guards else None,
    }
    for name in ("labelled", "completed", "decisions"):
        found[f"ranked_{name}"] = None if changes.completed is None else getattr(changes.completed, name)
    if c.evaluate.pool is not None:
        facts["pool_depth"] = c.evaluate.pool.depth
    further: dict[str, Any] = {name: table for name, table in found.items() if table is not None}
    if setup.calibration is not None:
        facts["decided"] = setup.decided
    sums = sum_up(run, SumUpConfig(tiers=setup.judges, reads=facts["reads"]), data, verdicts)
    edited = run(st.SUM_UP_EDITS, EditsConfig(examples=c.report.examples), edits=changes.edits)
    shown = excerpt(run, setup, data, verdicts, (changes.edits, edited["shortlist"]))
    page: Directory = run(
        without(st.REPORT, *(found.keys() - further.keys())),
        c.report.model_copy(update=facts),
        **sums,
        edit_tallies=edited["tallies"],
        counts=counts,
        **shown,
        agreement=verdicts.agreement,
        scores=scores,
        rejects=changes.rejects,
        costs=run.keep_table("costs", costs(run), schemas.COSTS),
        **further,
    )["page"]
    return page


def sum_up(run: Runner, config: SumUpConfig, data: Ingested, verdicts: Verdicts) -> dict[str, Any]:
    """Count what the page says of the verdicts, part by part; returns the counts, as the report names them."""
    candidates, (known, stage) = verdicts.candidates, _with_known(st.SUM_UP_VERDICTS, data)
    made = run(
        stage,
        config,
        queries=data.queries,
        candidates=candidates,
        similarity=verdicts.similarity,
        llm_verdicts=verdicts.llm_verdicts,
        decisions=verdicts.decisions,
        calls=verdicts.calls,
        windows=gather(run, "windows", st.JUDGE.name, schemas.WINDOWS, candidates.indexes),
        lengths=run(st.MEASURE, MeasureConfig(), candidates=candidates, passages=verdicts.texts)["lengths"],
        **known,
    )
    return {"verdict_scores" if name == "scores" else name: table for name, table in made.items()}


def excerpt(
    run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts, edited: tuple[Table, Table]
) -> dict[str, Any]:
    """Find what the page shows of its examples, as the report names it.

    edited: what relabelling changed, and the queries that the parts shortlisted.
    """
    config, (known, stage) = EditsConfig(examples=setup.config.report.examples), _with_known(st.EXCERPT, data)
    edits, shortlist = edited
    chosen: Table = run(st.CHOOSE_EXAMPLES, config, shortlist=shortlist)["chosen"]
    tables = {
        "queries": data.queries,
        "candidates": verdicts.candidates,
        "positives": data.positives,
        "similarity": verdicts.similarity,
        "llm_verdicts": verdicts.llm_verdicts,
        "decisions": verdicts.decisions,
        "edits": edits,
    }
    asked: dict[str, Any] = {name: only_asked(chosen, table) for name, table in tables.items()}
    made = run(stage, config, chosen=chosen, **asked, passages=verdicts.texts, **known)
    return {"passages" if name == "texts" else name: table for name, table in made.items()}


def _with_known(stage: Stage, data: Ingested) -> tuple[dict[str, Any], Stage]:
    """Return the known false negatives as an input of a stage, and the stage; without the input if none is known."""
    return ({"known": data.known}, stage) if data.known.rows else ({}, without(stage, "known"))


def costs(run: Runner) -> pl.DataFrame:
    """Sum up what each stage so far cost. The figures come from the manifests, so they do not change later."""
    rows = [
        {
            "stage": done.name,
            "parts": len(done.manifests),
            "seconds": done.seconds,
            "rows_in": sum(int(m.stats["rows_in"]) for m in done.manifests),
            "rows_out": sum(int(m.stats["rows_out"]) for m in done.manifests),
        }
        for done in run.runs
        if not is_of_gold(done.name)
    ]
    return pl.DataFrame(rows, schema=schemas.COSTS.columns)
