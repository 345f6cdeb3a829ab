"""What an export of the method reads: the tables that its settings ask for, and the facts of a dataset's card."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flows import stages as st
from flows.guards import guarding
from flows.method.human_labels import without
from flows.method.setup import Setup
from flows.method.tables import Ingested, Judged, Pool, Treated, Verdicts
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.calibrating.combine import name_of
from tasks.data.writing.config import ExportConfig, Facts
from tasks.verdicts.calibration import Calibration

_ALWAYS = ("instances",)


def export(
    run: Runner, setup: Setup, made: Judged, evidence: Mapping[str, Table], treated: Treated, treatment: str
) -> Directory:
    """Write the training set of one treatment in the configured formats."""
    config = with_facts(setup, setup.config.export)
    tables = wanted_tables(config, evidence)
    if treated.do_not_batch is not None:
        tables["do_not_batch"] = treated.do_not_batch
    written: Directory = run(
        without(st.EXPORT, *(name for name in st.EXPORT.every if name not in (*_ALWAYS, *tables))),
        config,
        label=treatment,
        instances=treated.instances,
        queries=made.data.queries,
        passages=made.verdicts.texts,
        **tables,
    )["export"]
    return written


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
