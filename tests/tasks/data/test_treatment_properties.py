"""What holds of every treatment of any data: generated rows go through the masks, the decisions and the treatments."""

from dataclasses import dataclass
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.treatments import DROP_REASONS, TreatConfig, treat
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.mine import without_given
from tasks.quality.labels import LabelsConfig, apply_labels
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text, normalise, show_passage
from tasks.verdicts.decide import DecideConfig, decide

Frames = dict[str, pl.DataFrame]
STATES = {"relevant": 0.9, "not_relevant": 0.1, "unsure": 0.5, "unparsed": None}
ABOVE_ALL = 0.95  # a threshold above the scores of all states: what is relevant becomes unsure
# Few texts, so that copies, contradictions and queries that are passages come often.
TEXTS = st.sampled_from([("", "otters eat"), ("otters", "eat"), ("", "Otters  EAT"), ("", "fish"), ("fish", "swim"),
                         ("", "fish swim"), ("", "boats"), ("", "trees"), ("", "what do otters eat")])  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A query with passages, by their places in the list of all passages."""

    text: str
    positives: list[int]
    given: list[int]
    irrelevant: list[int]
    states: list[str]  # of each passage, were it judged
    sheet: dict[int, str]  # labels of people


@dataclass(frozen=True)
class Data:
    passages: list[tuple[str, str]]
    rows: list[Row]
    settings: dict[str, Any]
    picked: int | None


@st.composite
def data_of(draw: st.DrawFn) -> Data:
    passages = draw(st.lists(TEXTS, min_size=2, max_size=9, unique=True))
    places = st.lists(st.integers(0, len(passages) - 1), unique=True, max_size=6)
    rows = st.builds(
        Row,
        text=st.sampled_from(["what do otters eat", "what swims", "What Do Otters Eat"]),
        positives=places.map(lambda found: found[:2]),
        given=places,
        irrelevant=places.map(lambda found: found[:2]),
        states=st.lists(st.sampled_from(list(STATES)), min_size=len(passages), max_size=len(passages)),
        sheet=st.dictionaries(
            st.integers(0, len(passages) - 1), st.sampled_from(["relevant", "not_relevant"]), max_size=1
        ),
    )
    settings_ = st.fixed_dictionaries(
        {
            "treatment": st.sampled_from(schemas.TREATMENTS),
            "refill": st.booleans(),
            "refill_unsure": st.booleans(),
            "drop_unparsed": st.booleans(),
            "no_negatives": st.sampled_from(["keep", "drop"]),
            "max_false_negatives": st.integers(0, 3),
            "relabel_from": st.sampled_from(["negatives", "pool"]),
            "relevant_from": st.sampled_from([None, 0.3, ABOVE_ALL]),
        }
    )
    return Data(
        passages, draw(st.lists(rows, min_size=1, max_size=3)), draw(settings_), draw(st.sampled_from([None, 2]))
    )


def table(schema: schemas.Schema, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema.columns, orient="row")


def hashes(data: Data, place: int) -> tuple[str, str, str]:
    title, text = data.passages[place]
    return hash_passage(title, text), hash_shown(title, text), hash_guard(title, text)


def prepare(data: Data) -> Frames:
    """Adopt the rows' negatives and decide on them, as a curation does."""
    named = [(f"q{n}", row) for n, row in enumerate(data.rows)]
    pairs = [(q, place, row) for q, row in named for place in row.given if place not in row.positives]
    said = [(q, p) for q, row in named for p in row.irrelevant if p not in row.positives]
    tables = {
        "queries": table(schemas.QUERIES, [("d", q, row.text, hash_text(row.text), "train") for q, row in named]),
        "positives": table(
            schemas.POSITIVES,
            [("d", q, f"p{place}", *hashes(data, place), "label") for q, row in named for place in row.positives],
        ),
        "given": table(
            schemas.GIVEN,
            [("d", q, f"p{place}", *hashes(data, place), n, None) for n, (q, place, _) in enumerate(pairs)],
        ),
    }
    irrelevant = table(schemas.IRRELEVANT, [("d", q, f"p{p}", *hashes(data, p), 0) for q, p in said])
    made = adopt(AdoptConfig(num_negatives=data.picked), irrelevant=irrelevant, **tables)
    states = dict(named)
    judged = [
        ("d", q, doc, "similarity", "j", states[q].states[int(doc[1:])], STATES[states[q].states[int(doc[1:])]],
         None, None, None, 1)
        for q, doc in made["candidates"].select("query_id", "doc_id").iter_rows()
    ]  # fmt: skip
    decisions = decide(
        DecideConfig(),
        candidates=made["candidates"],
        verdicts=table(schemas.VERDICTS, judged),
        llm_verdicts=schemas.VERDICTS.empty(),
    )["decisions"]
    labelled = [("d", q, f"p{p}", "", "", label, 1, False) for q, row in named for p, label in row.sheet.items()]
    decisions = apply_labels(LabelsConfig(), decisions=decisions, labelled=table(schemas.LABELLED, labelled))[
        "decisions"
    ]
    train = {name: tables[name] for name in ("queries", "given", "positives")}
    mined = set(without_given(**train)["query_id"])
    adopted = {q for q, row in named if q not in mined and row.positives}
    assert set(made["candidates"]["query_id"]) == adopted  # each query is adopted or mined, never both
    picked = {name: made[name] for name in ("candidates", "negatives", "reserve")}
    return {**{name: tables[name] for name in ("queries", "positives")}, **picked, "decisions": decisions}


def instances_of(made: Frames) -> dict[str, tuple[list[str], list[str]]]:
    return {q: (p, n) for q, p, n in made["instances"].select("query_id", "positives", "negatives").iter_rows()}


@settings(max_examples=60, deadline=None)
@given(data_of())
def test_what_holds_of_every_treatment(data: Data) -> None:
    frames = prepare(data)
    config = TreatConfig.model_validate(data.settings)
    made = treat(config, **frames)
    default = instances_of(treat(config.model_copy(update={"treatment": "default", "no_negatives": "keep"}), **frames))
    rows = instances_of(made)
    check_each_query_is_kept_or_dropped_once(frames, made)
    for query, (positives, negatives) in rows.items():
        check_no_passage_is_on_both_sides(data, positives, negatives)
        both = default[query], (positives, negatives)
        check_edits_explain_the_difference(frames, made, query, both, data.settings)
    promoted = made["edits"].filter(to="positive").select("query_id", "doc_id").rows()
    for query, doc in promoted:
        row, place = data.rows[int(query[1:])], int(doc[1:])
        said = {hash_guard(*data.passages[p]) for p in row.irrelevant if p not in row.positives}
        assert hash_guard(*data.passages[place]) not in said or row.sheet.get(place) == "relevant"


def check_each_query_is_kept_or_dropped_once(frames: Frames, made: Frames) -> None:
    kept = [f"d/{query}" for query in made["instances"]["query_id"]]
    dropped = made["rejects"].filter(pl.col("reason").is_in(DROP_REASONS))["key"].to_list()
    assert sorted(kept + dropped) == sorted(f"d/{query}" for query in frames["queries"]["query_id"])
    assert not made["edits"].select(schemas.EDITS.key).is_duplicated().any()


def check_no_passage_is_on_both_sides(data: Data, positives: list[str], negatives: list[str]) -> None:
    def shown(docs: list[str]) -> list[str]:
        return [normalise(show_passage(*data.passages[int(doc[1:])])) for doc in docs]

    assert not set(shown(positives)) & set(shown(negatives))
    assert len(set(shown(negatives))) == len(negatives)


def check_edits_explain_the_difference(
    frames: Frames,
    made: Frames,
    query: str,
    both: tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]],
    settings_: dict[str, Any],
) -> None:
    """Of one query: what differs between `default` and the treatment (`both`) are edits and refills, nothing else."""
    default, now = both
    edits = made["edits"].filter(query_id=query)
    assert now[0][: len(default[0])] == default[0]
    assert set(now[0][len(default[0]) :]) == set(edits.filter(to="positive")["doc_id"])
    gone = set(edits.filter(pl.col("from") == "negative")["doc_id"])
    stay = [doc for doc in default[1] if doc not in gone]
    assert now[1][: len(stay)] == stay
    refills = now[1][len(stay) :]
    assert len(refills) <= len(gone)
    assert set(refills) <= set(frames["reserve"].filter(query_id=query)["doc_id"])
    states = dict(frames["decisions"].filter(query_id=query).select("doc_id", "state").iter_rows())
    allowed = {"not_relevant", "unsure"} if settings_["refill_unsure"] else {"not_relevant"}
    allowed |= {"relevant"} if settings_["relevant_from"] == ABOVE_ALL and settings_["refill_unsure"] else set()
    assert {states[doc] for doc in refills} <= allowed
