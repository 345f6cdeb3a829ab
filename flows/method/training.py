"""Training on the treated instances (paper section 4), and the pairs that are masked in it."""

from collections.abc import Mapping
from typing import Any

from flows import stages as st
from flows.method.setup import Setup
from flows.method.tables import Ingested, Judged, empty_table
from flows.training_stages import training_stage
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.data.known_pairs import KnownPairsConfig
from tasks.summaries import KNOWN_PAIRS
from tasks.training.train_config import TrainConfig

BASE = "base"  # the name of the model that training starts from
_BY_VERDICT = ("relevant", "unsure")  # values of `mask` that read verdicts


def list_known_pairs(run: Runner, setup: Setup, made: Judged) -> Table | None:
    """List what the judges decided, part by part, for the mask and the soft labels; None where training reads none."""
    c, reranker = setup.config, setup.config.train_reranker
    reads = reads_verdicts(c.train) or (reranker is not None and reads_verdicts(reranker.loop))
    if not _is_measured(setup, made.data) or not reads:
        return None
    config = KnownPairsConfig(
        soft_labels=c.train.soft_labels if c.train is not None and c.train.is_soft else None,
        relevant_from=c.treat.relevant_from,
        skip=setup.skipped,
    )
    known: Table = run(
        st.LIST_KNOWN_PAIRS,
        config,
        queries=made.data.queries,
        positives=made.data.positives,
        candidates=made.pool.candidates,
        decisions=made.decisions,
        teacher=made.data.teacher,
    )["known"]
    return known


def training_of(run: Runner, config: TrainConfig, treatment: str, known: Table | None) -> tuple[TrainConfig, Table]:
    """Return the settings and the known pairs of one treatment's training.

    `default` reads no verdict, so its mask holds the labelled positives alone; soft labels it has like the others.
    """
    if treatment == "default" and config.mask in _BY_VERDICT:
        config = config.model_copy(update={"mask": "positives"})
        known = known if config.is_soft else None
    return config, empty_table(run, "known", KNOWN_PAIRS) if known is None else known


def train(
    run: Runner, setup: Setup, data: Ingested, instances: Mapping[str, Table], known: Table | None
) -> dict[str, Directory]:
    """Train one model per treatment from the same start; returns them and the start, by name.

    None is trained if there is nothing to evaluate it on. Without a `train` section it is the start alone, if a
    reranker is trained.
    """
    c = setup.config
    if not _is_measured(setup, data) or setup.base_model is None or (c.train is None and c.train_reranker is None):
        return {}
    models = {BASE: setup.base_model}
    known = known if reads_verdicts(c.train) else None
    for name in c.train_on if c.train is not None else ():
        assert c.train is not None
        config, masked = training_of(run, c.train, name, known)
        stage = training_stage(config)
        further: dict[str, Any] = {"qrels": data.qrels} if "qrels" in stage.inputs else {}
        models[name] = run(
            stage,
            config.model_copy(update={"model": setup.base_model_path}),
            label=name,
            key={"base": setup.base_model_key, **setup.software(st.TRAIN, config.device)},
            instances=instances[name],
            queries=data.queries,
            passages=data.passages,
            base=setup.base_model,
            known=masked,
            **further,
        )["model"]
    return models


def train_rerankers(
    run: Runner, setup: Setup, data: Ingested, instances: Mapping[str, Table], known: Table | None
) -> dict[str, Directory]:
    """Train one reranker per treatment from the same start; returns them by treatment.

    None is trained without a `train_reranker` section, or if there is nothing to evaluate it on.
    """
    wanted = setup.config.train_reranker
    if wanted is None or setup.reranker_start is None or not _is_measured(setup, data):
        return {}
    models: dict[str, Directory] = {}
    for name in setup.config.train_on:
        treated, masked = training_of(run, wanted.loop, name, known if reads_verdicts(wanted.loop) else None)
        models[name] = run(
            st.TRAIN_RERANKER,
            wanted.model_copy(update={"model": "", "mask": treated.mask}),  # the digest of the model is in the key
            label=name,
            key={"base": setup.reranker_start_key, **setup.software(st.TRAIN_RERANKER, wanted.device)},
            instances=instances[name],
            queries=data.queries,
            passages=data.passages,
            base=setup.reranker_start,
            known=masked,
        )["model"]
    return models


def reads_verdicts(config: TrainConfig | None) -> bool:
    """Tell whether a training reads the pairs that judges decided: as soft labels, or for its mask."""
    return config is not None and (config.is_soft or config.mask in _BY_VERDICT)


def _is_measured(setup: Setup, data: Ingested) -> bool:
    """Tell whether a query is held out, or the settings name a collection."""
    return bool(data.qrels.rows or setup.config.evaluate.collections)
