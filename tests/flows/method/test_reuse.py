"""What is judged or encoded again and what is not: new queries and texts, another prompt, equal texts elsewhere."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from flows import stages as st
from infra.engines.encoder import EncoderEngine
from infra.engines.specs import SentenceTransformersSpec
from infra.models.random_models import build_tiny_encoder
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table, write_table
from infra.storage.store import Store
from tasks.mining.encode import EncodeConfig
from tasks.protocols import Encoder
from tasks.schemas import PASSAGES
from tasks.texts import hash_passage
from tests.flows.animals import run_method, tier, write_source
from tests.flows.fakes import InProcess


def queries_asked(contents: list[str]) -> set[str]:
    return {re.search(r"<query>\n(.*?)\n</query>", content).group(1) for content in contents}  # type: ignore[union-attr]


def test_a_night_with_one_more_query_asks_about_that_query_only(tmp_path: Path) -> None:
    first = run_method(tmp_path, write_source(tmp_path / "monday", queries=6))[2]
    second = run_method(tmp_path, write_source(tmp_path / "tuesday", queries=7))[2]
    assert len(queries_asked(first.llm.asked)) == 5  # every fourth is held out
    assert queries_asked(second.llm.asked) - queries_asked(first.llm.asked) == {"where does the viper live"}
    # The fake judge cannot be read for one prompt in sixteen: what was not read is asked again, nothing else is.
    again = [content for content in second.llm.asked if "viper" not in content]
    assert all(second.llm.answer_to(content).text == "Maybe" for content in again)


def test_another_prompt_asks_about_everything_again(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    first = run_method(tmp_path, source)[2]
    other = tier(judge={"definition": "A passage counts if it names a place."})
    second = run_method(tmp_path, source, tiers=[other])[2]
    assert len(second.llm.asked) == len(first.llm.asked)
    assert queries_asked(second.llm.asked) == queries_asked(first.llm.asked)


def test_the_same_texts_under_another_datasets_name_and_other_ids_cost_no_call(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    first = run_method(tmp_path, source)[2]
    renamed = write_source(tmp_path / "renamed")
    for path in renamed.rglob("*"):
        if path.is_file():
            jsonl = path.read_text().replace('"_id": "', '"_id": "x')
            path.write_text(re.sub(r"^(q\d+)\t(\S+)\t", r"x\1\tx\2\t", jsonl, flags=re.MULTILINE))
    outcome, run, second = run_method(tmp_path, renamed, name="elsewhere")
    judged = next(r for r in run.runs if r.name == "judge-llm").manifests
    assert sum(m.stats["facts"]["recalled"] for m in judged) > 0
    assert all(second.llm.answer_to(content).text == "Maybe" for content in second.llm.asked)
    assert first.llm.asked
    assert read_table(run.store, outcome.queries)["dataset"].unique().to_list() == ["elsewhere"]


def test_thresholds_move_without_a_call(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    run_method(tmp_path, source)
    moved = run_method(tmp_path, source, tiers=[tier(judge={"relevant_from": 0.9, "not_relevant_below": 0.2})])[2]
    assert any(name.startswith("judge-llm") for name in moved.computed)
    assert all(moved.llm.answer_to(content).text == "Maybe" for content in moved.llm.asked)


def test_a_skipped_dataset_is_neither_judged_nor_edited(tmp_path: Path) -> None:
    outcome, run, executor = run_method(
        tmp_path, write_source(tmp_path / "source"), policies={"animals": {"skip": True}}
    )
    assert executor.llm.asked == []
    relabel, default = (read_table(run.store, outcome.instances[t]) for t in ("relabel", "default"))
    assert relabel.drop("treatment").equals(default.drop("treatment"))


def test_facts_say_what_was_asked_remembered_and_not_read(tmp_path: Path) -> None:
    _, run, executor = run_method(tmp_path, write_source(tmp_path / "source"))
    facts = [m.stats["facts"] for r in run.runs if r.name == "judge-llm" for m in r.manifests]
    assert sum(f["calls"] for f in facts) == len(executor.llm.asked)
    unread = sum(executor.llm.answer_to(content).text == "Maybe" for content in executor.llm.asked)
    assert sum(f["failures"].get("neither", 0) for f in facts) == unread
    assert sum(f["prompt_tokens"] for f in facts) == 10 * len(executor.llm.asked)


class Noting:
    """An encoder that notes which texts it encodes."""

    def __init__(self, engine: Encoder) -> None:
        self.engine = engine
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        self.seen += texts
        return self.engine.encode(texts, role)


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncoderEngine]:
    folder = tmp_path_factory.mktemp("encoder")
    build_tiny_encoder(folder)
    engine = EncoderEngine(SentenceTransformersSpec(model=str(folder), digest="tiny"))
    yield engine
    engine.close()


def corpus(store: Store, texts: int, parts: int) -> Table:
    """Passages cut into parts by their number."""
    rows = [("d", f"p{n}", "", f"Passage {n} tells of {n * n} things.") for n in range(texts)]
    frame = pl.DataFrame([(*row, hash_passage("", row[3])) for row in rows], schema=PASSAGES.columns, orient="row")
    cut = (frame.gather_every(parts, offset) for offset in range(parts))
    return Table("passages", tuple(write_table(store, "passages", f, PASSAGES, i) for i, f in enumerate(cut)))


@pytest.mark.slow
def test_one_percent_more_passages_in_a_corpus_that_is_cut_anew_are_all_that_is_encoded(
    tmp_path: Path, tiny_encoder: EncoderEngine
) -> None:
    store, spec = Store.open(str(tmp_path / "store")), SentenceTransformersSpec(model="", digest="tiny")

    def encode(passages: Table, **changes: Any) -> tuple[pl.DataFrame, Noting, list[dict[str, Any]]]:
        noting = Noting(tiny_encoder)
        executor = InProcess(store, tmp_path / "scratch", encoder=noting)
        run = Runner(store, executor, **changes)
        made = run(st.ENCODE_PASSAGES, EncodeConfig(), engine=spec, passages=passages)["embeddings"]
        return read_table(store, made).sort("text_hash"), noting, [m.stats["facts"] for m in run.runs[0].manifests]

    whole, first, _ = encode(corpus(store, 200, 3))
    assert len(first.seen) == 200
    grown, second, facts = encode(corpus(store, 202, 4))
    assert second.seen == ["Passage 200 tells of 40000 things.", "Passage 201 tells of 40401 things."]
    assert [sum(fact[name] for fact in facts) for name in ("remembered", "encoded")] == [200, 2]
    assert grown.join(whole, on="text_hash", how="semi").equals(whole)  # to the last bit

    executor = InProcess(store, tmp_path / "scratch")
    executor._engines["encoder"] = None  # a part whose every text is remembered needs no engine
    run = Runner(store, executor)
    again = run(st.ENCODE_PASSAGES, EncodeConfig(), engine=spec, passages=corpus(store, 202, 7))["embeddings"]
    assert read_table(store, again).sort("text_hash").equals(grown)

    _, forced, facts = encode(corpus(store, 202, 7), force=frozenset({("encode_passages", 3)}))
    assert len(forced.seen) == 29  # encoded anew, on demand
    assert sum(fact["encoded"] for fact in facts) == 29
