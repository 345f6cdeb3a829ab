"""The method: `curate_method` shows it on one screen, the functions below what each step reads.

The paper's sections: 1.1 (mining), 3 (judging and relabelling), 4 (training and evaluation), 7 (people).
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from importlib import metadata
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.section import ConfigError
from flows.guards.guarding import find_duplicates
from flows.method.exports import export, find_evidence, keep_apart, list_apart
from flows.method.gold_set import judge_gold
from flows.method.human_labels import apply_people, without
from flows.method.judging import check_labels, judge
from flows.method.losses import counted_rows, guard_pool, guard_rows, refuse_losses
from flows.method.retrieving import encode, search
from flows.method.setup import TO_THE_END, Outcome, Setup, TooManyRejected, WaitingForLabels
from flows.method.tables import (
    Changes,
    Finished,
    Ingested,
    Judged,
    Pool,
    Sampled,
    Treated,
    Vectors,
    Verdicts,
    empty_table,
    gather,
    only_asked,
    read_source,
    union,
    wait_for,
)
from flows.stage_names import is_of_gold
from infra.stages.runner import Runner, StageRun, WorkNeeded
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.mining.mine import without_given
from tasks.report.describe import DescribeConfig
from tasks.report.examples import ExcerptConfig, MeasureConfig
from tasks.verdicts.complete import TallyConfig

_QUERY = ("dataset", "query_id")
_OF_A_ROW: Mapping[str, tuple[str, ...] | None] = {
    "queries": None,
    "given": (*_QUERY, "guard_hash"),
    "positives": (*_QUERY, "guard_hash"),
}
_READERS = 8  # parts that are read at a time


def curate_method(run: Runner, setup: Setup) -> Outcome:
    """Run the whole method once, from the source to the report.

    Raises:
        WaitingForLabels: too few of the drawn pairs are labelled, and `sample.wait_for` asks for more.
        TooManyRejected: too much of the source cannot be used; or, as Contaminated, it repeats evaluation sets.
    """
    c, made = setup.config, judge_data(run, setup)
    data, pool, verdicts = made.data, made.pool, made.verdicts
    treated: dict[str, Treated] = {n: treat(run, setup, data, pool, made.decisions, n) for n in c.treatments}
    treated = {name: keep_apart(run, setup, made, each, name) for name, each in treated.items()}
    checked = check_labels(run, setup, data, made.decisions)
    evidence = find_evidence(data, pool, verdicts, made.decisions) | ({} if checked is None else checked.evidence)
    exports = {name: export(run, setup, made, evidence, each, name) for name, each in treated.items()}
    scores, ignored, models = train_and_evaluate(run, setup, data, treated)
    guards = (*made.guards, *(table for each in treated.values() for table in each.guards))
    changes = replace(collect_changes(run, data, pool, treated, ignored), checked=checked, guards=guards)
    page = write_report(run, setup, data, verdicts, changes, scores, made.counts)
    instances = {name: each.instances for name, each in treated.items()}
    sheet, texts = made.sampled.sheet, (data.queries, verdicts.texts)
    return Outcome(page, sheet, exports, instances, *texts, scores, models, evidence, list_apart(treated))


def judge_data(run: Runner, setup: Setup) -> Judged:
    """Run the method up to the decisions: everything that a treatment is made of.

    Raises:
        WaitingForLabels: as `curate_method`. TooManyRejected, Contaminated: likewise.
    """
    data = ingest(run, setup)
    refuse_losses(run, setup)  # before anything costs time or money
    data, screened = guard_rows(run, setup, data)
    vectors = encode(run, data, setup.encoder)
    pool, repeated = guard_pool(run, setup, data, find_candidates(run, setup, data, vectors))
    duplicates = find_duplicates(run, setup.config.guards, data.passages, data.generations.passages)
    guards = (*screened, *repeated, *(duplicates.figures if duplicates else ()))
    counts = describe(run, data, pool)
    verdicts = judge(run, setup, data, vectors, pool)
    sampled = draw_sample(run, setup, data, verdicts)
    if setup.gold is not None:
        judge_gold(run, setup, setup.gold)
    verdicts = apply_people(run, setup, verdicts, sampled, parts=data.generations.query_parts)
    tally = run(st.TALLY, TallyConfig(), decisions=verdicts.decisions)["tally"]
    complete = run(st.COMPLETE, setup.config.complete, tally=tally)["completeness"]  # fails on too many unparsed
    decisions = wait_for(complete, verdicts.decisions)
    return Judged(data, pool, verdicts, sampled, decisions, counts, duplicates, guards)


def ingest(run: Runner, setup: Setup) -> Ingested:
    """Read the source, or harvest the demo's corpus first."""
    c = setup.config
    source: Any = setup.source
    if c.source.harvest:
        source = run(st.HARVEST, c.source.harvest, key=_library_versions(setup))["source"]
    data = read_source(run, c.ingest, source, setup.before)
    _note_unknown_policies(run, setup, data.queries)
    return data


def find_candidates(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> Pool:
    """Mine candidates for queries without usable negatives; for the others take those that came with them."""
    c, found = setup.config, list[Pool]()
    to_mine: Mapping[int, int] = {}
    if data.given.rows:
        given = run(
            st.ADOPT,
            c.adopt,
            given=data.given,
            queries=data.queries,
            positives=data.positives,
            irrelevant=data.irrelevant,
        )
        found.append(Pool(**given))
        to_mine = _counted_to_mine(run.runs[-1], data)
    if _has_queries_to_mine(run, data, to_mine):
        found.append(mine(run, setup, data, vectors))
    if not found:  # there is no training query; the report says so
        picks = dict.fromkeys(("negatives", "reserve"), schemas.NEGATIVES)
        tables = {"candidates": schemas.CANDIDATES, **picks, "rejects": schemas.REJECTS}
        return Pool(**{name: empty_table(run, name, table, data.queries.indexes) for name, table in tables.items()})
    names = [field.name for field in fields(Pool)]
    return Pool(**{name: union(name, *(getattr(made, name) for made in found)) for name in names})


def mine(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> Pool:
    """Search the passages for every query, and pick hard negatives among the hits (paper section 1.1)."""
    found = search(run, setup, data, vectors)
    mined = run(
        st.MINE,
        setup.config.mine,
        key={"encoder": setup.encoder_key},
        **found,
        queries=data.queries,
        positives=data.positives,
        given=data.given,
        irrelevant=data.irrelevant,
        query_embeddings=vectors.queries,
    )
    return Pool(**mined)


def draw_sample(run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts) -> Sampled:
    """Draw the pairs that people check (paper section 7), and write the sheet they fill in."""
    how, candidates = setup.config.sample, verdicts.candidates
    short = run(st.SHORTLIST, how, candidates=candidates, decisions=verdicts.decisions)
    draw = run(st.DRAW, how, **short)
    drawn: Table = draw["drawn"]
    shown = run(
        st.SHOW_PAIRS,
        how,
        drawn=drawn,
        shortlist=only_asked(drawn, short["shortlist"]),
        queries=data.queries,
        passages=verdicts.texts,
        positives=data.positives,
    )["shown"]
    made = run(st.SAMPLE, how, key={"candidates": candidates.content()}, shown=shown, chances=draw["chances"])
    return Sampled(samples=made["samples"], sheet=made["sheet"])


def treat(run: Runner, setup: Setup, data: Ingested, pool: Pool, decisions: Table, treatment: str) -> Treated:
    """Make the training instances under one treatment (paper section 3.2); `default` reads no verdict."""
    if treatment == "default":
        decisions = empty_table(run, "decisions", schemas.VERDICTS, pool.candidates.indexes)
    made = run(
        st.TREAT,
        setup.config.treat.model_copy(update={"treatment": treatment, "skip": setup.skipped}),
        label=treatment,
        queries=data.queries,
        positives=data.positives,
        candidates=pool.candidates,
        negatives=pool.negatives,
        reserve=pool.reserve,
        decisions=decisions,
    )
    return Treated(**made)


def train_and_evaluate(
    run: Runner, setup: Setup, data: Ingested, treated: Mapping[str, Treated]
) -> tuple[Table, Table, dict[str, Directory]]:
    """Train one model per treatment from the same start, and score each and the start on the held-out queries.

    Returns the scores, the passages left out of the rankings (the same for each model), and the models by treatment.
    """
    c = setup.config
    if c.train is None or not data.qrels.rows or setup.base_model is None:
        return empty_table(run, "scores", schemas.SCORES), empty_table(run, "rejects", schemas.REJECTS), {}
    models, scores = {"base": setup.base_model}, []
    ignored = Table("rejects")
    for name in c.train_on:
        models[name] = run(
            st.TRAIN,
            c.train.model_copy(update={"model": setup.base_model_path}),
            label=name,
            key={"base": setup.base_model_key, **setup.software(st.TRAIN, c.train.device)},
            instances=treated[name].instances,
            queries=data.queries,
            passages=data.passages,
            base=setup.base_model,
        )["model"]
    for model_name, model in models.items():
        made = run(
            st.EVALUATE,
            c.evaluate.model_copy(update={"model_name": model_name}),
            label=model_name,
            key=setup.software(st.EVALUATE, c.evaluate.device),
            model=model,
            queries=data.queries,
            passages=data.passages,
            qrels=data.qrels,
        )
        scores.append(made["scores"])
        ignored = made["rejects"]
    return union("scores", *scores), ignored, {name: models[name] for name in c.train_on}


def collect_changes(run: Runner, data: Ingested, pool: Pool, treated: Mapping[str, Treated], ignored: Table) -> Changes:
    """Gather the labels that relabelling changed and the rows that any stage left out."""
    edits = treated["relabel"].edits if "relabel" in treated else empty_table(run, "edits", schemas.EDITS)
    rejects = union("rejects", data.rejects, pool.rejects, *(made.rejects for made in treated.values()), ignored)
    return Changes(edits, rejects)


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
    facts["reads"] = c.encoder.max_seq_length if c.train is None else c.train.max_seq_length
    calibration = None if setup.calibration is None else setup.calibration.directory
    found = {"people": verdicts.people, "guarantee": verdicts.guarantee, "calibration": calibration}
    checked = changes.checked
    found |= {
        "positive_checks": None if checked is None else checked.decisions,
        "query_checks": None if checked is None else checked.queries,
        "guards": union("guards", *changes.guards) if changes.guards else None,
    }
    further: dict[str, Any] = {name: table for name, table in found.items() if table is not None}
    if setup.calibration is not None:
        facts["decided"] = setup.decided
    texts, lengths = excerpt(run, setup, data, verdicts, changes.edits)
    page: Directory = run(
        without(st.REPORT, *(found.keys() - further.keys())),
        c.report.model_copy(update=facts),
        queries=data.queries,
        passages=texts,
        positives=data.positives,
        candidates=verdicts.candidates,
        similarity=verdicts.similarity,
        llm_verdicts=verdicts.llm_verdicts,
        calls=verdicts.calls,
        windows=gather(run, "windows", st.JUDGE.name, schemas.WINDOWS),
        decisions=verdicts.decisions,
        agreement=verdicts.agreement,
        known=data.known,
        edits=changes.edits,
        scores=scores,
        rejects=changes.rejects,
        costs=run.keep_table("costs", costs(run), schemas.COSTS),
        counts=counts,
        lengths=lengths,
        **further,
    )["page"]
    return page


def excerpt(run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts, edits: Table) -> tuple[Table, Table]:
    """Find the passages of the report's examples, and the lengths of the candidates' passages."""
    config, candidates = ExcerptConfig(examples=setup.config.report.examples), verdicts.candidates
    chosen: Table = run(st.CHOOSE_EXAMPLES, config, edits=edits)["chosen"]
    texts = run(
        st.EXCERPT,
        config,
        chosen=chosen,
        candidates=only_asked(chosen, candidates),
        positives=only_asked(chosen, data.positives),
        passages=verdicts.texts,
    )["texts"]
    lengths = run(st.MEASURE, MeasureConfig(), candidates=candidates, passages=verdicts.texts)["lengths"]
    return texts, lengths


def finished_curation(run: Runner, setup: Setup, *, to_the_end: bool = True) -> Finished:
    """Return the tables of the curation's finished stages, read from the manifests; nothing is computed.

    Raises:
        ConfigError: with `to_the_end`, the curation is unfinished.
    """
    look = Runner(run.store, found=run.found)
    try:
        curate_method(look, setup)
    except (WorkNeeded, WaitingForLabels, TooManyRejected) as unfinished:
        if to_the_end:
            raise ConfigError(f"{setup.config.name} is unfinished ({unfinished}); {TO_THE_END}") from None
    return Finished({done.name: done for done in look.runs})


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


def _library_versions(setup: Setup) -> dict[str, str]:
    """Return the versions of the libraries whose documentation is harvested: they decide the stage's input."""
    harvest = setup.config.source.harvest
    modules = harvest.modules if harvest else ()
    return {name: metadata.version(name) for name in sorted({module.split(".")[0] for module in modules})}


def _counted_to_mine(adopted: StageRun, data: Ingested) -> dict[int, int]:
    """Return how many queries have to be mined, by query part; an earlier version did not count them."""
    indexes = sorted(data.given.indexes | data.queries.indexes | data.positives.indexes | data.irrelevant.indexes)
    facts = {indexes[number]: done.stats.get("facts", {}) for number, done in adopted.finished.items()}
    return {index: int(counted["to_mine"]) for index, counted in facts.items() if "to_mine" in counted}


def _has_queries_to_mine(run: Runner, data: Ingested, counted: Mapping[int, int]) -> bool:
    """Return whether any training query has no negative of its own that can be one.

    Parts that are not `counted` are read, a few at a time.
    """
    if data.queries.missing or data.given.missing or data.positives.missing or any(counted.values()):
        return True  # or nothing is known yet, and the stages that follow are blocked
    tables: dict[str, Table] = {name: getattr(data, name) for name in _OF_A_ROW}

    def lacks(part: int) -> bool:
        read = {name: run.read(table.at(part), _OF_A_ROW[name]) for name, table in tables.items()}
        return not without_given(**read).is_empty()

    def any_lacks() -> bool:
        parts, some = sorted(data.queries.indexes - counted.keys()), 4 * _READERS
        with ThreadPoolExecutor(_READERS, "parts") as pool:
            return any(any(pool.map(lacks, parts[n : n + some])) for n in range(0, len(parts), some))

    return run.found.note("queries to mine", tables.values(), any_lacks)


def _note_unknown_policies(run: Runner, setup: Setup, queries: Table) -> None:
    """Report policies for datasets that the source does not hold: a misspelt `skip` would be judged and paid for."""
    if not setup.config.policies or queries.missing:
        return
    parts = (queries.at(part) for part in sorted(queries.indexes))
    present = run.found.note(
        "datasets", [queries], lambda: {name for part in parts for name in run.read(part, ["dataset"])["dataset"]}
    )
    for name in sorted(set(setup.config.policies) - present):
        run.on_note(f"policies: no dataset {name!r} in the source, which holds {', '.join(sorted(present))}")
