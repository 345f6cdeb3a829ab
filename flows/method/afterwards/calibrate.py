"""Makes a calibration of a finished curation, from labels of people or of its strong judge; no judge is asked."""

from collections.abc import Callable
from dataclasses import dataclass

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.curate import finished_curation
from flows.method.human_labels import read_labels
from flows.method.setup import Setup
from flows.method.tables import Finished, empty_table
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory
from tasks import schemas
from tasks.calibrating.fit import KNOWN, FitConfig
from tasks.quality.imported import IMPORTED
from tasks.verdicts.calibration import DATA, PEOPLE

_Fit = Callable[[Runner, Setup, Finished, FitConfig], Directory]


@dataclass(frozen=True)
class Wanted:
    """Where the labels come from, and what the artifact says of itself.

    labels_from: `people`, `known`, `data` or a tier; empty: the first with enough. command: that made it. at: when.
    """

    labels_from: str = ""
    command: str = ""
    at: str = ""


def calibrate_method(look: Runner, run: Runner, setup: Setup, wanted: Wanted) -> Directory:
    """Fit a calibration and measure it; returns the folder with `calibration.json` and `calibration.md`.

    All labels of people in the store are read; a label counts wherever the texts are the same.

    Args:
        look: finds the curation's finished parts, and computes nothing.
        run: computes the calibration.
        setup: the curation.
        wanted: see Wanted.

    Raises:
        ConfigError: the curation has not judged yet, `labels_from` names no judge of it, or there are too few labels.
    """
    judges = setup.judges
    sources = (PEOPLE, KNOWN, DATA, *judges)
    if wanted.labels_from and wanted.labels_from not in sources:
        raise ConfigError(f"--from {wanted.labels_from}: {setup.curation} has the labels of {', '.join(sources)}")
    done = finished_curation(look, setup, to_the_end=False)
    config = FitConfig(
        labels_from=wanted.labels_from,
        tiers=judges,
        judges=setup.judge_names,
        encoder=setup.encoder_key,
        curation=setup.curation,
        command=wanted.command,
        at=wanted.at,
    )
    told = []
    for fit in _fits(wanted.labels_from):
        page = fit(run, setup, done, config)
        failed = list(run.runs[-1].failed.values())
        if not failed:
            return page
        told += failed
    raise ConfigError(f"{setup.curation}: {'. '.join(told)}")


def _fits(labels_from: str) -> tuple[_Fit, ...]:
    """Return what is tried, in this order: given labels, then the data itself."""
    if not labels_from:
        return (_from_labels, _from_data)
    return (_from_data,) if labels_from == DATA else (_from_labels,)


def _from_labels(run: Runner, setup: Setup, done: Finished, config: FitConfig) -> Directory:
    stages = [*(["imported"] if IMPORTED in setup.judges else []), *(tier.stage for tier in setup.tiers)]
    drawn = "sample" in done.runs
    page: Directory = run(
        st.CALIBRATE,
        config,
        features=done.table("features", st.JUDGE_SIMILARITY.name),
        llm_verdicts=done.table("verdicts", *stages) if stages else empty_table(run, "verdicts", schemas.VERDICTS),
        samples=done.table("samples", "sample") if drawn else empty_table(run, "samples", schemas.SAMPLES),
        known=done.table("known", st.INGEST.name),
        human=run.keep_table("human", read_labels(run.store), schemas.HUMAN),
    )["page"]
    return page


def _from_data(run: Runner, setup: Setup, done: Finished, config: FitConfig) -> Directory:
    page: Directory = run(
        st.CALIBRATE_DATA,
        config.model_copy(update={"labels_from": DATA}),
        key={"encoder": setup.encoder_key},
        queries=done.table("queries", st.INGEST.name),
        positives=done.table("positives", st.INGEST.name),
        query_embeddings=done.table("embeddings", st.ENCODE_QUERIES.name),
        passage_embeddings=done.table("embeddings", st.ENCODE_PASSAGES.name),
    )["page"]
    return page
