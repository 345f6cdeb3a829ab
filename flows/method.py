"""The method on one screen: each line is a stage; what it reads is what it is given (paper sections 3 to 5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import polars as pl
from pydantic import BaseModel

from flows import stages as st
from flows.config import CurationConfig, TierConfig
from flows.gold import Gold, is_of_gold, judge_gold
from flows.people import find_labelled, hear_people, still_wanted, without
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.judging.cascade import AdmitConfig, EscalateConfig
from tasks.judging.config import JudgeConfig
from tasks.prompts.prompt import load_definition, prompt_digest
from tasks.texts import hash_text

Data = dict[str, Any]


class CurationFailed(Exception):
    """Parts failed; the message lists them with the command that repairs them."""


class WaitingForLabels(Exception):
    """People have not labelled enough of the sample yet; the message says how many are wanted, and how they come in."""

    def __init__(self, message: str, sheet: Directory | None = None) -> None:
        """Keep the sheet that is to be filled in."""
        super().__init__(message)
        self.sheet = sheet


@dataclass(frozen=True)
class Tier:
    """One judge made ready: whom it is asked about, how, with which engine, and the digests of what it is shown."""

    name: str
    escalate: EscalateConfig
    judge: JudgeConfig
    engine: BaseModel
    shown: Mapping[str, Mapping[str, str]]  # of its prompt files, and of its definitions of relevance

    @classmethod
    def of(cls, tier: TierConfig, config: CurationConfig, engine: BaseModel, model: str) -> "Tier":
        """Complete a tier's configuration with the policies, and with the judge's name: model, engine and prompts."""
        policies = {dataset: policy for dataset, policy in config.policies.items() if not policy.skip}
        judge = JudgeConfig.model_validate(tier.judge.model_dump() | {"tier": tier.name, "policies": policies})
        prompts = {name: prompt_digest(name) for name in judge.prompt_names}
        definitions = {name: hash_text(load_definition(name)) for name in judge.definition_names}
        asked = f"{model}:{part_keys.digest(part_keys.semantic(engine))[:12]}"
        names = {"engine": asked, "judge": f"{asked}/{part_keys.digest([prompts, definitions])[:12]}"}
        shown = {"prompts": prompts, "definitions": definitions}
        return cls(tier.name, tier.escalate, judge.model_copy(update=names), engine, shown)


@dataclass(frozen=True)
class Setup:
    """One curation made ready: its configuration, its source in the store, its engines with their digests."""

    config: CurationConfig
    source: Directory | None
    base_model: Directory | None
    encoder: BaseModel
    tiers: tuple[Tier, ...]
    encoder_key: str  # weights and settings of the encoder, for stages that read embeddings through hashes
    base_model_key: str  # its weights alone: where training starts
    base_model_path: str
    page: Mapping[str, Any]  # what the report says of the run: configuration, command, versions
    curation: str = ""
    sheet: str = ""  # where the sheet for people is laid out
    labels: pl.DataFrame | None = None  # what people say, by text (tasks.quality.labels.settle)
    gold: Gold | None = None


@dataclass(frozen=True)
class Outcome:
    """What a curation leaves: the page, the sheet for people, and one folder of exports per treatment."""

    page: Directory
    sheet: Directory
    exports: Mapping[str, Directory]
    instances: Mapping[str, Table]
    queries: Table
    passages: Table
    scores: Table = field(default_factory=lambda: Table("scores"))
    models: Mapping[str, Directory] = field(default_factory=dict)  # by the treatment each was trained on


def curate_method(run: Runner, setup: Setup) -> Outcome:
    """Run the whole method once, from the source to the report."""
    c = setup.config
    source: Any = run(st.HARVEST, c.source.harvest, key=_versions(c))["source"] if c.source.harvest else setup.source
    data = run(st.INGEST, c.ingest, source=source)
    _note_unknown_policies(run, setup, data["queries"])
    data |= encode(run, setup, data)
    pool = find_candidates(run, setup, data)
    verdicts = judge(run, setup, data, pool)
    sampled = run(st.SAMPLE, c.sample, candidates=verdicts["judged"], **_pick(verdicts, "decisions"), **_texts(data))
    if setup.gold is not None:
        judge_gold(run, setup, setup.gold)
    labelled = find_labelled(run, setup, verdicts["judged"], len(data["queries"].indexes))
    _wait_for_people(run, setup, sampled, labelled)
    verdicts |= hear_people(run, setup, labelled, verdicts, sampled["samples"])
    gate = run(st.COMPLETE, c.complete, **_pick(verdicts, "decisions"))["completeness"]
    treated: dict[str, Data] = {t: treat(run, setup, data | pool | verdicts, gate, t) for t in c.treatments}
    exports: dict[str, Directory] = {
        t: run(st.EXPORT, c.export, label=t, instances=made["instances"], **_pick(data, "queries", "passages"))[
            "export"
        ]
        for t, made in treated.items()
    }
    scores, models = retrain(run, setup, data, treated)
    edits = treated["relabel"]["edits"] if "relabel" in treated else run.keep_table("edits", *_empty(schemas.EDITS))
    rejects = _union("rejects", data["rejects"], pool["rejects"], *(made["rejects"] for made in treated.values()))
    people = {} if verdicts["people"] is None else _pick(verdicts, "people")
    page = run(
        st.REPORT if people else without(st.REPORT, "people"),
        c.report.model_copy(
            update={**setup.page, "max_false_negatives": c.treat.max_false_negatives, "tiers": _names(setup)}
        ),
        **_texts(data),
        candidates=verdicts["judged"],
        **_pick(verdicts, "similarity", "llm_verdicts", "calls", "decisions", "agreement"),
        known=data["known"],
        edits=edits,
        scores=scores,
        rejects=rejects,
        costs=run.keep_table("costs", costs(run), schemas.COSTS),
        **people,
    )["page"]
    instances: dict[str, Table] = {t: made["instances"] for t, made in treated.items()}
    return Outcome(page, sampled["sheet"], exports, instances, data["queries"], data["passages"], scores, models)


def encode(run: Runner, setup: Setup, data: Data) -> Data:
    """Encode the passages and the queries, each text once."""
    c, engine = setup.config, setup.encoder
    passages = run(st.ENCODE_PASSAGES, c.encode, engine=engine, passages=data["passages"])
    queries = run(st.ENCODE_QUERIES, c.encode, engine=engine, queries=data["queries"])
    return {"passage_embeddings": passages["embeddings"], "query_embeddings": queries["embeddings"]}


def find_candidates(run: Runner, setup: Setup, data: Data) -> Data:
    """Mine the queries that carry no negatives; take those of the others as they came."""
    c, found = setup.config, []
    if data["given"].rows:
        found.append(run(st.ADOPT, c.adopt, **_pick(data, "given", "queries", "positives")))
    if _queries_to_mine(run, data):
        vectors = _pick(data, "query_embeddings", "passage_embeddings")
        hits = run(st.SEARCH, c.search, **_pick(data, "queries", "passages"), **vectors)["hits"]
        key = {"encoder": setup.encoder_key}
        found.append(
            run(st.MINE, c.mine, key=key, hits=hits, **_pick(data, "queries", "positives", "given"), **vectors)
        )
    if not found:  # no training query at all: the report says so
        schema = {"candidates": schemas.CANDIDATES, "negatives": schemas.NEGATIVES, "rejects": schemas.REJECTS}
        parts = data["queries"].indexes
        return {name: run.keep_table(name, *_empty(of), parts) for name, of in schema.items()}
    return {name: _union(name, *(made[name] for made in found)) for name in ("candidates", "negatives", "rejects")}


def judge(run: Runner, setup: Setup, data: Data, pool: Data) -> Data:
    """Judge the candidates: similarity first, each tier where the one before leaves it open, then one decision each."""
    c, candidates = setup.config, admit(run, setup, pool["candidates"])
    similarity = run(
        st.JUDGE_SIMILARITY,
        c.similarity,
        key={"encoder": setup.encoder_key},
        candidates=candidates,
        **_pick(data, "query_embeddings", "passage_embeddings", "positives"),
    )["verdicts"]
    before, answers = similarity, [_nothing(run)]
    for tier in setup.tiers:
        escalated = run(st.ESCALATE, tier.escalate, label=tier.name, candidates=candidates, verdicts=before)
        answers.append(
            run(
                st.JUDGE,
                tier.judge,
                label=tier.name,
                key=tier.shown,
                engine=tier.engine,
                **escalated,
                **_pick(data, "queries", "passages", "positives"),
            )
        )
        before = answers[-1]["verdicts"]
    llm_verdicts, calls = (_union(name, *(answer[name] for answer in answers)) for name in ("verdicts", "calls"))
    first = setup.tiers[0].escalate if setup.tiers else EscalateConfig()
    decide = c.decide.model_copy(update={"lower": first.lower, "upper": first.upper, "tiers": _names(setup)})
    decided = run(st.DECIDE, decide, candidates=candidates, verdicts=similarity, llm_verdicts=llm_verdicts)
    judged = {"similarity": similarity, "llm_verdicts": llm_verdicts, "decisions": decided["decisions"]}
    agree = c.agree.model_copy(update={"tiers": _names(setup)})
    agreement = run(st.AGREE, agree, candidates=candidates, **judged, known=data["known"])["agreement"]
    return {**judged, "judged": candidates, "calls": calls, "agreement": agreement}


def admit(run: Runner, setup: Setup, candidates: Table) -> Table:
    """Take out the candidates of datasets that are not to be judged."""
    skip = _skipped(setup)
    return run(st.ADMIT, AdmitConfig(skip=skip), candidates=candidates)["admitted"] if skip else candidates


def treat(run: Runner, setup: Setup, data: Data, gate: Table, treatment: str) -> Data:
    """Make the training instances under one treatment (paper section 3.2); `default` reads no verdict."""
    config = setup.config.treat.model_copy(update={"treatment": treatment, "skip": _skipped(setup)})
    if treatment == "default":
        decisions = run.keep_table("decisions", *_empty(schemas.VERDICTS), data["candidates"].indexes)
    else:
        decisions = _behind(gate, data["decisions"])
    return run(
        st.TREAT,
        config,
        label=treatment,
        decisions=decisions,
        **_pick(data, "queries", "positives", "candidates", "negatives"),
    )


def retrain(run: Runner, setup: Setup, data: Data, treated: dict[str, Data]) -> tuple[Table, dict[str, Directory]]:
    """Train one model per treatment from the same start, and score each and the start on the held-out queries."""
    c = setup.config
    if c.train is None or not data["qrels"].rows or setup.base_model is None:
        return run.keep_table("scores", *_empty(schemas.SCORES)), {}
    models = {"base": setup.base_model}
    config = c.train.model_copy(update={"model": setup.base_model_path})
    for name in c.train_on:
        models[name] = run(
            st.TRAIN,
            config,
            label=name,
            key={"base": setup.base_model_key},
            instances=treated[name]["instances"],
            base=setup.base_model,
            **_pick(data, "queries", "passages"),
        )["model"]
    scores = [
        run(
            st.EVALUATE,
            c.evaluate.model_copy(update={"model_name": name}),
            label=name,
            model=model,
            **_pick(data, "queries", "passages", "qrels"),
        )["scores"]
        for name, model in models.items()
    ]
    return _union("scores", *scores), {name: models[name] for name in c.train_on}


def _versions(config: CurationConfig) -> dict[str, str]:
    """Name the versions of the libraries whose documentation is harvested: their content is the stage's input."""
    modules = config.source.harvest.modules if config.source.harvest else ()
    return {name: metadata.version(name) for name in sorted({module.split(".")[0] for module in modules})}


def costs(run: Runner) -> pl.DataFrame:
    """Sum up what each stage so far cost, from the manifests: the figures stay those of the day it was computed."""
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


def _queries_to_mine(run: Runner, data: Data) -> bool:
    """Tell whether any training query carries no negatives of its own."""
    if data["queries"].missing:
        return True  # nothing is known yet; the stages that follow are blocked and say so
    query = ["dataset", "query_id"]
    train = run.read(data["queries"]).filter(pl.col("split") == "train")
    return not train.join(run.read(data["given"]), on=query, how="anti").is_empty()


def _note_unknown_policies(run: Runner, setup: Setup, queries: Table) -> None:
    """Say which policies name a dataset that is not there: a misspelt `skip` would be judged and paid for."""
    if not setup.config.policies or queries.missing:
        return
    present = set(run.read(queries)["dataset"])
    for name in sorted(set(setup.config.policies) - present):
        run.on_note(f"policies: no dataset {name!r} in the source, which holds {', '.join(sorted(present))}")


def _wait_for_people(run: Runner, setup: Setup, sampled: Data, labelled: Table) -> None:
    """Stop before the treatments while too few of the drawn pairs are labelled.

    Raises:
        WaitingForLabels: it says how many are wanted, where the sheet is, and how it comes back.
    """
    wanted = still_wanted(run, setup, sampled["samples"], labelled)
    if wanted is None:
        return
    raise WaitingForLabels(
        f"{setup.curation} waits for people: {wanted.labelled} of {wanted.drawn} drawn pairs are labelled, "
        f"{wanted.wanted} are wanted (sample.wait_for: {setup.config.sample.wait_for:g}). Fill in {setup.sheet}, then: "
        f"reneg labels import {setup.curation} {setup.sheet} --annotator NAME --resume",
        sampled["sheet"],
    )


def _names(setup: Setup) -> tuple[str, ...]:
    return tuple(tier.name for tier in setup.tiers)


def _skipped(setup: Setup) -> tuple[str, ...]:
    return tuple(sorted(dataset for dataset, policy in setup.config.policies.items() if policy.skip))


def _nothing(run: Runner) -> Data:
    """What tiers that are not there would have said."""
    schema = {"verdicts": schemas.VERDICTS, "calls": schemas.CALLS}
    return {name: run.keep_table(name, *_empty(of)) for name, of in schema.items()}


def _pick(data: Data, *names: str) -> Data:
    return {name: data[name] for name in names}


def _texts(data: Data) -> Data:
    return _pick(data, "queries", "passages", "positives")


def _union(name: str, *tables: Table) -> Table:
    pieces = sorted((p for table in tables for p in table.pieces), key=lambda piece: piece.index)
    return Table(name, tuple(pieces), frozenset[int]().union(*(table.missing for table in tables)))


def _behind(gate: Table, table: Table) -> Table:
    """Make a table wait for a gate: with the gate shut, everything that reads the table is blocked."""
    return Table(table.name, table.pieces, table.indexes) if gate.missing else table


def _empty(schema: schemas.Schema) -> tuple[pl.DataFrame, schemas.Schema]:
    return schema.empty(), schema
