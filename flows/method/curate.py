"""The method: `curate_method` shows it on one screen, the functions below what each step reads.

The paper's sections: 1.1 (mining), 3 (judging and relabelling), 4 (training and evaluation), 7 (people).
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from importlib import metadata
from typing import Any

from flows import stages as st
from flows.config.section import ConfigError
from flows.guards.guarding import find_duplicates
from flows.method.evaluating import complete_labels, evaluate, evaluate_collections, evaluate_rerankers
from flows.method.exports import describe, export, find_evidence, keep_apart, list_apart, write_report
from flows.method.gold_set import judge_gold
from flows.method.human_labels import apply_people, without
from flows.method.judging import check_labels, judge
from flows.method.losses import guard_pool, guard_rows, refuse_losses
from flows.method.retrieving import encode, rescore, search
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
    only_asked,
    read_source,
    union,
    wait_for,
)
from flows.method.training import BASE, list_known_pairs, train, train_rerankers
from infra.stages.runner import Runner, StageRun, WorkNeeded
from infra.stages.stage import Stage
from infra.storage.artifacts import Table
from tasks import schemas
from tasks.mining.mine import without_given
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
    exports = export(run, setup, made, evidence, treated)
    instances = {name: each.instances for name, each in treated.items()}
    known = list_known_pairs(run, setup, made)
    models = train(run, setup, data, instances, known)
    rerankers = train_rerankers(run, setup, data, instances, known)
    scored = evaluate_rerankers(run, setup, data, evaluate(run, setup, data, models), rerankers)
    guards = (*made.guards, *(table for each in treated.values() for table in each.guards))
    completed = complete_labels(run, setup, data, made.vectors, scored)
    changes = collect_changes(run, data, pool, treated, scored.rejects)
    changes = replace(changes, checked=checked, guards=guards, completed=completed)
    page = write_report(run, setup, data, verdicts, changes, scored.scores, made.counts)
    sheet, texts = made.sampled.sheet, (data.queries, verdicts.texts)
    trained = {name: model for name, model in models.items() if name != BASE}
    scores, dev_scores = scored.scores, scored.dev_scores
    made_apart, results = list_apart(treated), evaluate_collections(run, setup, models, rerankers)
    return Outcome(
        page, sheet, exports, instances, *texts, scores, trained, evidence, made_apart, dev_scores, results, rerankers
    )


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
    return Judged(data, pool, verdicts, sampled, decisions, counts, vectors, duplicates, guards)


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
    tables = {name: getattr(data, name) for name in ("queries", "positives", "given", "irrelevant")}
    inputs = {**search(run, setup, data, vectors), **tables, "query_embeddings": vectors.queries}
    rescored = rescore(run, setup, data, inputs)
    stage: Stage = st.MINE
    if rescored is None:
        stage = without(stage, "rescored")
    else:
        inputs["rescored"] = rescored
    return Pool(**run(stage, setup.config.mine, key={"encoder": setup.encoder_key}, **inputs))


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


def collect_changes(run: Runner, data: Ingested, pool: Pool, treated: Mapping[str, Treated], ignored: Table) -> Changes:
    """Gather the labels that relabelling changed and the rows that any stage left out."""
    parts = pool.candidates.indexes
    edits = treated["relabel"].edits if "relabel" in treated else empty_table(run, "edits", schemas.EDITS, parts)
    rejects = union("rejects", data.rejects, pool.rejects, *(made.rejects for made in treated.values()), ignored)
    return Changes(edits, rejects)


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
