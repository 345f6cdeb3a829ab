"""The method: `curate_method` shows it on one screen, the functions below what each step reads.

The paper's sections: 1.1 (mining), 3 (judging and relabelling), 4 (training and evaluation), 7 (people).
"""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.gold_set import judge_gold
from flows.method.human_labels import apply_people, without
from flows.method.setup import Outcome, Setup, WaitingForLabels
from flows.method.tables import (
    Changes,
    Finished,
    Ingested,
    Pool,
    Sampled,
    Treated,
    Vectors,
    Verdicts,
    empty_table,
    union,
    wait_for,
)
from infra.stages.runner import Runner, WorkNeeded
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.judging.cascade import AdmitConfig, EscalateConfig


def curate_method(run: Runner, setup: Setup) -> Outcome:
    """Run the whole method once, from the source to the report.

    Raises:
        WaitingForLabels: too few of the drawn pairs are labelled, and `sample.wait_for` asks for more.
    """
    c = setup.config
    data = ingest(run, setup)
    vectors = encode(run, setup, data)
    pool = find_candidates(run, setup, data, vectors)
    verdicts = judge(run, setup, data, vectors, pool)
    sampled = draw_sample(run, setup, data, verdicts)
    if setup.gold is not None:
        judge_gold(run, setup, setup.gold)
    verdicts = apply_people(run, setup, verdicts, sampled, parts=len(data.queries.indexes))
    complete = run(st.COMPLETE, c.complete, decisions=verdicts.decisions)["completeness"]  # fails on too many unparsed
    decisions = wait_for(complete, verdicts.decisions)
    treated: dict[str, Treated] = {name: treat(run, setup, data, pool, decisions, name) for name in c.treatments}
    exports = {name: export(run, setup, data, made, name) for name, made in treated.items()}
    scores, models = train_and_evaluate(run, setup, data, treated)
    changes = collect_changes(run, data, pool, treated)
    page = write_report(run, setup, data, verdicts, changes, scores)
    instances = {name: made.instances for name, made in treated.items()}
    return Outcome(page, sampled.sheet, exports, instances, data.queries, data.passages, scores, models)


def ingest(run: Runner, setup: Setup) -> Ingested:
    """Read the source, or harvest the demo's corpus first."""
    c = setup.config
    source: Any = setup.source
    if c.source.harvest:
        source = run(st.HARVEST, c.source.harvest, key=_library_versions(setup))["source"]
    data = Ingested(**run(st.INGEST, c.ingest, source=source))
    _note_unknown_policies(run, setup, data.queries)
    return data


def encode(run: Runner, setup: Setup, data: Ingested) -> Vectors:
    """Encode the passages and the queries, each text once."""
    c, engine = setup.config, setup.encoder
    passages = run(st.ENCODE_PASSAGES, c.encode, engine=engine, passages=data.passages)["embeddings"]
    queries = run(st.ENCODE_QUERIES, c.encode, engine=engine, queries=data.queries)["embeddings"]
    return Vectors(queries=queries, passages=passages)


def find_candidates(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> Pool:
    """Mine candidates for queries without negatives; for the others take the negatives that came with them."""
    c, found = setup.config, list[Pool]()
    if data.given.rows:
        given = run(st.ADOPT, c.adopt, given=data.given, queries=data.queries, positives=data.positives)
        found.append(Pool(**given))
    if _has_queries_to_mine(run, data):
        found.append(mine(run, setup, data, vectors))
    if not found:  # there is no training query; the report says so
        parts = data.queries.indexes
        return Pool(
            candidates=empty_table(run, "candidates", schemas.CANDIDATES, parts),
            negatives=empty_table(run, "negatives", schemas.NEGATIVES, parts),
            rejects=empty_table(run, "rejects", schemas.REJECTS, parts),
        )
    return Pool(
        candidates=union("candidates", *(made.candidates for made in found)),
        negatives=union("negatives", *(made.negatives for made in found)),
        rejects=union("rejects", *(made.rejects for made in found)),
    )


def mine(run: Runner, setup: Setup, data: Ingested, vectors: Vectors) -> Pool:
    """Search the passages for every query, and pick hard negatives among the hits (paper section 1.1)."""
    hits = run(
        st.SEARCH,
        setup.config.search,
        queries=data.queries,
        passages=data.passages,
        query_embeddings=vectors.queries,
        passage_embeddings=vectors.passages,
    )["hits"]
    mined = run(
        st.MINE,
        setup.config.mine,
        key={"encoder": setup.encoder_key},
        hits=hits,
        queries=data.queries,
        positives=data.positives,
        given=data.given,
        query_embeddings=vectors.queries,
        passage_embeddings=vectors.passages,
    )
    return Pool(**mined)


def judge(run: Runner, setup: Setup, data: Ingested, vectors: Vectors, pool: Pool) -> Verdicts:
    """Judge the candidates: by similarity, then by each tier what the one before left open; then decide on each."""
    c, candidates = setup.config, pool.candidates
    if setup.skipped:
        candidates = run(st.ADMIT, AdmitConfig(skip=setup.skipped), candidates=candidates)["admitted"]
    similarity = run(
        st.JUDGE_SIMILARITY,
        c.similarity,
        key={"encoder": setup.encoder_key},
        candidates=candidates,
        query_embeddings=vectors.queries,
        passage_embeddings=vectors.passages,
        positives=data.positives,
    )["verdicts"]
    answers, calls = ask_tiers(run, setup, data, candidates, similarity)
    # A score in the first tier's band that nobody was asked about, for lack of budget, stays unsure.
    first = setup.tiers[0].escalate if setup.tiers else EscalateConfig()
    decide = c.decide.model_copy(update={"lower": first.lower, "upper": first.upper, "tiers": setup.tier_names})
    decided = run(st.DECIDE, decide, candidates=candidates, verdicts=similarity, llm_verdicts=answers)
    agreement = run(
        st.AGREE,
        c.agree.model_copy(update={"tiers": setup.tier_names}),
        candidates=candidates,
        similarity=similarity,
        llm_verdicts=answers,
        decisions=decided["decisions"],
        known=data.known,
    )["agreement"]
    return Verdicts(candidates, similarity, answers, calls, decided["decisions"], agreement)


def ask_tiers(run: Runner, setup: Setup, data: Ingested, candidates: Table, similarity: Table) -> tuple[Table, Table]:
    """Judge with each tier what the tier before left open; returns the verdicts and the calls of all tiers."""
    answers = [empty_table(run, "verdicts", schemas.VERDICTS)]
    calls = [empty_table(run, "calls", schemas.CALLS)]
    before = similarity
    for tier in setup.tiers:
        escalated = run(st.ESCALATE, tier.escalate, label=tier.name, candidates=candidates, verdicts=before)
        made = run(
            st.JUDGE,
            tier.judge,
            label=tier.name,
            key=tier.shown,
            engine=tier.engine,
            escalated=escalated["escalated"],
            queries=data.queries,
            passages=data.passages,
            positives=data.positives,
        )
        before = made["verdicts"]
        answers.append(made["verdicts"])
        calls.append(made["calls"])
    return union("verdicts", *answers), union("calls", *calls)


def draw_sample(run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts) -> Sampled:
    """Draw the pairs that people check (paper section 7), and write the sheet they fill in."""
    made = run(
        st.SAMPLE,
        setup.config.sample,
        candidates=verdicts.candidates,
        decisions=verdicts.decisions,
        queries=data.queries,
        passages=data.passages,
        positives=data.positives,
    )
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
        decisions=decisions,
    )
    return Treated(**made)


def export(run: Runner, setup: Setup, data: Ingested, treated: Treated, treatment: str) -> Directory:
    """Write the training set of one treatment in the configured formats."""
    written: Directory = run(
        st.EXPORT,
        setup.config.export,
        label=treatment,
        instances=treated.instances,
        queries=data.queries,
        passages=data.passages,
    )["export"]
    return written


def train_and_evaluate(
    run: Runner, setup: Setup, data: Ingested, treated: Mapping[str, Treated]
) -> tuple[Table, dict[str, Directory]]:
    """Train one model per treatment from the same start, and score each and the start on the held-out queries."""
    c = setup.config
    if c.train is None or not data.qrels.rows or setup.base_model is None:
        return empty_table(run, "scores", schemas.SCORES), {}
    models, scores = {"base": setup.base_model}, []
    for name in c.train_on:
        models[name] = run(
            st.TRAIN,
            c.train.model_copy(update={"model": setup.base_model_path}),
            label=name,
            key={"base": setup.base_model_key},
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
            model=model,
            queries=data.queries,
            passages=data.passages,
            qrels=data.qrels,
        )
        scores.append(made["scores"])
    return union("scores", *scores), {name: models[name] for name in c.train_on}


def collect_changes(run: Runner, data: Ingested, pool: Pool, treated: Mapping[str, Treated]) -> Changes:
    """Gather the labels that relabelling changed and the rows that any stage left out."""
    edits = treated["relabel"].edits if "relabel" in treated else empty_table(run, "edits", schemas.EDITS)
    rejects = union("rejects", data.rejects, pool.rejects, *(made.rejects for made in treated.values()))
    return Changes(edits, rejects)


def write_report(
    run: Runner, setup: Setup, data: Ingested, verdicts: Verdicts, changes: Changes, scores: Table
) -> Directory:
    """Write the page that people read, with its summary.json."""
    c = setup.config
    facts = {**setup.page, "max_false_negatives": c.treat.max_false_negatives, "tiers": setup.tier_names}
    people: dict[str, Any] = {} if verdicts.people is None else {"people": verdicts.people}
    page: Directory = run(
        st.REPORT if people else without(st.REPORT, "people"),
        c.report.model_copy(update=facts),
        queries=data.queries,
        passages=data.passages,
        positives=data.positives,
        candidates=verdicts.candidates,
        similarity=verdicts.similarity,
        llm_verdicts=verdicts.llm_verdicts,
        calls=verdicts.calls,
        decisions=verdicts.decisions,
        agreement=verdicts.agreement,
        known=data.known,
        edits=changes.edits,
        scores=scores,
        rejects=changes.rejects,
        costs=run.keep_table("costs", costs(run), schemas.COSTS),
        **people,
    )["page"]
    return page


def finished_curation(run: Runner, setup: Setup, *, to_the_end: bool = True) -> Finished:
    """Return the tables of the curation's finished stages, read from the manifests; nothing is computed.

    Raises:
        ConfigError: with `to_the_end`, the curation is unfinished.
    """
    look = Runner(run.store)
    try:
        curate_method(look, setup)
    except (WorkNeeded, WaitingForLabels) as unfinished:
        if to_the_end:
            raise ConfigError(f"{setup.config.name} is unfinished ({unfinished}); run it to its end first") from None
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
        if not st.is_of_gold(done.name)
    ]
    return pl.DataFrame(rows, schema=schemas.COSTS.columns)


def _library_versions(setup: Setup) -> dict[str, str]:
    """Return the versions of the libraries whose documentation is harvested: they decide the stage's input."""
    harvest = setup.config.source.harvest
    modules = harvest.modules if harvest else ()
    return {name: metadata.version(name) for name in sorted({module.split(".")[0] for module in modules})}


def _has_queries_to_mine(run: Runner, data: Ingested) -> bool:
    """Return whether any training query has no negatives of its own."""
    if data.queries.missing:
        return True  # nothing is known yet; the stages that follow are blocked
    query = ["dataset", "query_id"]
    train = run.read(data.queries).filter(pl.col("split") == "train")
    return not train.join(run.read(data.given), on=query, how="anti").is_empty()


def _note_unknown_policies(run: Runner, setup: Setup, queries: Table) -> None:
    """Report policies for datasets that the source does not hold: a misspelt `skip` would be judged and paid for."""
    if not setup.config.policies or queries.missing:
        return
    present = set(run.read(queries)["dataset"])
    for name in sorted(set(setup.config.policies) - present):
        run.on_note(f"policies: no dataset {name!r} in the source, which holds {', '.join(sorted(present))}")
