"""Labels of people: stored, matched by text, put in place of the judges' decisions, and waited for if wanted."""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import polars as pl

from flows import stages as st
from flows.method.setup import Setup, WaitingForLabels
from flows.method.tables import Sampled, Verdicts
from infra.stages.runner import Runner
from infra.stages.stage import Stage
from infra.storage.artifacts import Piece, Table
from infra.storage.store import Store
from tasks import schemas
from tasks.quality.labels import LabelsConfig, PeopleConfig, label_pairs, newest, share_labelled
from tasks.texts import part_of

_READERS = 16


@dataclass(frozen=True)
class Wanted:
    """How many of the drawn pairs are labelled, and how many must be before the treatments."""

    labelled: int
    wanted: int
    drawn: int


def apply_people(
    run: Runner, setup: Setup, verdicts: Verdicts, sampled: Sampled, *, parts: Sequence[range]
) -> Verdicts:
    """Replace the judges' decisions with people's labels where there are any, and compare the two.

    Only parts with a labelled pair are computed; the others keep the judges' pieces. A new label therefore recomputes
    its own part and what depends on it, and nothing else.

    Args:
        run: the runner of the curation.
        setup: the curation's setup.
        verdicts: the judges' verdicts.
        sampled: the pairs drawn for people.
        parts: the query parts of each generation.

    Returns:
        The verdicts with people's decisions and the comparison (`people`); unchanged if nobody labelled any pair.

    Raises:
        WaitingForLabels: too few of the drawn pairs are labelled.
    """
    labelled = find_labelled(run, setup, verdicts.candidates, parts)
    wait_for_people(run, setup, sampled, labelled)
    if not labelled.pieces:
        return verdicts
    judges, there = verdicts.decisions, labelled.indexes
    pieces = tuple(piece for piece in judges.pieces if piece.index in there)
    decisions = Table("decisions", pieces, judges.missing & there)
    decided: Table = run(st.APPLY_LABELS, LabelsConfig(), decisions=decisions, labelled=labelled)["decisions"]
    untouched = [piece for piece in judges.pieces if piece.index not in there]
    merged = sorted((*untouched, *decided.pieces), key=lambda piece: piece.index)
    people = run(
        st.AGREE_PEOPLE,
        PeopleConfig(tiers=setup.judges),
        samples=sampled.samples,
        labelled=labelled,
        similarity=verdicts.similarity,
        llm_verdicts=verdicts.llm_verdicts,
        decisions=judges,
    )["people"]
    return replace(
        verdicts, decisions=Table("decisions", tuple(merged), judges.missing | decided.missing), people=people
    )


def find_labelled(run: Runner, setup: Setup, candidates: Table, parts: Sequence[range]) -> Table:
    """Return the candidates that people labelled; a part without any has no piece.

    Only those parts of the candidates are read that can contain a labelled query. `parts`: the query parts of each
    generation.
    """
    labels = setup.labels
    if labels is None or labels.is_empty():
        return Table("labelled")
    asked = labels["query_hash"].unique()
    possible = {those[part_of(text_hash, len(those))] for those in parts if those for text_hash in asked}
    pieces: list[Piece] = []
    for index in sorted((candidates.indexes - candidates.missing) & possible):
        found = label_pairs(run.read(candidates.at(index)), labels)
        if not found.is_empty():
            pieces += run.keep_table("labelled", found, schemas.LABELLED, frozenset({index})).pieces
    return Table("labelled", tuple(pieces))


def wait_for_people(run: Runner, setup: Setup, sampled: Sampled, labelled: Table) -> None:
    """Raise `WaitingForLabels` while too few of the drawn pairs are labelled.

    Raises:
        WaitingForLabels: the message says how many labels are needed, where the sheet is, and how to import it.
    """
    wanted = still_wanted(run, setup, sampled.samples, labelled)
    if wanted is None:
        return
    raise WaitingForLabels(
        f"{setup.curation} waits for people: {wanted.labelled} of {wanted.drawn} drawn pairs are labelled, "
        f"{wanted.wanted} are wanted (sample.wait_for: {setup.config.sample.wait_for:g}). Fill in {setup.sheet}, then: "
        f"reneg labels import {setup.curation} {setup.sheet} --annotator NAME --resume",
        sampled.sheet,
    )


def still_wanted(run: Runner, setup: Setup, samples: Table, labelled: Table) -> Wanted | None:
    """Return how many of the drawn pairs are labelled and how many must be; None if enough are."""
    share = setup.config.sample.wait_for
    if not share or samples.missing or not samples.rows:
        return None
    pairs = [run.read(Table("labelled", (piece,))) for piece in labelled.pieces]
    done, drawn = share_labelled(run.read(samples), pl.concat([schemas.LABELLED.empty(), *pairs]))
    wanted = -int(-share * drawn // 1)
    return Wanted(done, wanted, drawn) if done < wanted else None


def without(stage: Stage, *names: str) -> Stage:
    """Return a stage without some inputs, for when there are none: its key is the one it had before they existed."""
    each, every, late = (
        tuple(name for name in inputs if name not in names) for inputs in (stage.each, stage.every, stage.late)
    )
    return replace(stage, each=each, every=every, late=late)


def label_keys(store: Store) -> list[str]:
    """Return the keys of the imports of people's labels."""
    return [key for key in store.list("labels") if key.endswith(".parquet")]


def read_labels(store: Store, keys: Sequence[str] | None = None) -> pl.DataFrame:
    """Read imports of people's labels, by default all; an import that was purged meanwhile is left out."""
    with ThreadPoolExecutor(_READERS, "labels") as pool:
        found = list(pool.map(store.read, label_keys(store) if keys is None else keys))
    frames = [pl.read_parquet(io.BytesIO(data)).select(*schemas.HUMAN.columns) for data in found if data is not None]
    return newest(pl.concat([schemas.HUMAN.empty(), *frames]))


def write_labels(store: Store, labels: pl.DataFrame) -> str:
    """Store labels as one object named after its content; returns its key."""
    buffer = io.BytesIO()
    labels.select(*schemas.HUMAN.columns).sort(schemas.HUMAN.key).rechunk().write_parquet(
        buffer, compression="zstd", compression_level=3
    )
    key = f"labels/{hashlib.sha256(buffer.getvalue()).hexdigest()}.parquet"
    store.create(key, buffer.getvalue())
    return key
