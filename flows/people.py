"""What people said, inside the method: found by text, laid over the decisions, waited for where that is asked."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from flows import stages as st
from infra.stages.runner import Runner
from infra.stages.stage import Stage
from infra.storage.artifacts import Piece, Table
from tasks import schemas
from tasks.quality.labels import LabelsConfig, PeopleConfig, label_pairs, share_labelled
from tasks.texts import part_of

if TYPE_CHECKING:
    from flows.method import Setup

Data = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """How many of the drawn pairs are labelled, and how many are wanted before the treatments."""

    labelled: int
    wanted: int
    drawn: int


def hear_people(run: Runner, setup: "Setup", labelled: Table, verdicts: Data, samples: Table) -> Data:
    """Lay people's labels over the machine's decisions, and compare the two.

    Only parts with a labelled pair are computed; the others keep the machine's pieces. So labels cost nothing where
    there are none, and a new one recomputes its own part and what follows from it.

    Args:
        run: as for the curation.
        setup: of the curation.
        labelled: the candidates that people labelled, from `find_labelled`.
        verdicts: `decisions` and what the tiers say.
        samples: the pairs drawn for people.

    Returns:
        `decisions`, and `people`: the comparison, None where nobody has labelled any candidate.
    """
    machine: Table = verdicts["decisions"]
    if not labelled.pieces:
        return {"decisions": machine, "people": None}
    there = labelled.indexes
    pieces = tuple(piece for piece in machine.pieces if piece.index in there)
    decisions = Table("decisions", pieces, machine.missing & there)
    decided: Table = run(st.APPLY_LABELS, LabelsConfig(), decisions=decisions, labelled=labelled)["decisions"]
    untouched = [piece for piece in machine.pieces if piece.index not in there]
    merged = sorted((*untouched, *decided.pieces), key=lambda piece: piece.index)
    people = run(
        st.AGREE_PEOPLE,
        PeopleConfig(tiers=tuple(tier.name for tier in setup.tiers)),
        samples=samples,
        labelled=labelled,
        **{name: verdicts[name] for name in ("similarity", "llm_verdicts", "decisions")},
    )["people"]
    decisions = Table("decisions", tuple(merged), machine.missing | decided.missing)
    return {"decisions": decisions, "people": people}


def find_labelled(run: Runner, setup: "Setup", candidates: Table, parts: int) -> Table:
    """Find the candidates that people labelled, part by part; a part without any has no piece.

    Of the candidates only the parts are read in which a labelled query can be; `parts` is into how many the queries are
    cut.
    """
    labels = setup.labels
    if labels is None or labels.is_empty() or not parts:
        return Table("labelled")
    possible = {part_of(text_hash, parts) for text_hash in labels["query_hash"].unique()}
    pieces: list[Piece] = []
    for index in sorted((candidates.indexes - candidates.missing) & possible):
        found = label_pairs(run.read(candidates.at(index)), labels)
        if not found.is_empty():
            pieces += run.keep_table("labelled", found, schemas.LABELLED, frozenset({index})).pieces
    return Table("labelled", tuple(pieces))


def still_wanted(run: Runner, setup: "Setup", samples: Table, labelled: Table) -> Wanted | None:
    """Tell how many of the drawn pairs still need a label before the treatments; None where enough have one."""
    share = setup.config.sample.wait_for
    if not share or samples.missing or not samples.rows:
        return None
    pairs = [run.read(Table("labelled", (piece,))) for piece in labelled.pieces]
    done, drawn = share_labelled(run.read(samples), pl.concat([schemas.LABELLED.empty(), *pairs]))
    wanted = -int(-share * drawn // 1)
    return Wanted(done, wanted, drawn) if done < wanted else None


def without(stage: Stage, *names: str) -> Stage:
    """Take inputs that there are none of from a stage: its key stays what it was before there were any."""
    return replace(stage, every=tuple(name for name in stage.every if name not in names))
