"""Recipes are configurations that can be read; what a model reads has one place; no batch has an own positive."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from flows.config.load import load_config, parse_config
from flows.config.section import ConfigError
from flows.config.training_recipes import load_recipe, recipe_names
from infra.models.resolve import parse
from infra.stages.part_keys import semantic
from tasks import schemas
from tasks.texts import combine_hashes, hash_passage, hash_text
from tasks.training.losses.batch import Lookup, compare
from tasks.training.losses.pairs import Pairs
from tasks.training.rotation import Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Rows, training_rows
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
RECIPES = ("e5-base", "qwen2.5-3b-reranker", "qwen2.5-7b-lora", "reranker", "small", "static-embedding")


def read(**settings: Any) -> Any:
    return parse_config({"name": "mine", "source": {"path": "x"}, **settings}, "test")


def load(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nsource: {{path: x}}\n{text}")
    return load_config(path)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_configuration_that_fits_itself_and_names_a_model(tmp_path: Path, name: str) -> None:
    assert tuple(recipe_names()) == RECIPES
    config = load(tmp_path, f"recipe: {name}\n")
    assert parse(config.encoder.model)[0] in ("hub", "package")
    assert config.train.max_seq_length <= config.evaluate.max_seq_length
    assert load_recipe(name).about.source


def test_the_paper_s_recipe_has_the_paper_s_values() -> None:
    config = read(recipe="e5-base")
    train = config.train
    assert (train.temperature, train.num_negatives, train.learning_rate) == (0.01, 7, 2e-5)
    assert (train.max_seq_length, config.evaluate.max_seq_length) == (350, 512)
    for section in (config.encoder, train, config.evaluate):
        assert (section.query_prompt, section.passage_prompt) == ("query: ", "passage: ")


def test_the_recipe_for_a_language_model_has_the_values_of_the_paper_s_script() -> None:
    config = read(recipe="qwen2.5-7b-lora")
    train = config.train
    assert (train.temperature, train.num_negatives, train.learning_rate, train.max_seq_length) == (0.01, 7, 5e-6, 350)
    assert (train.pooling, train.gradient_checkpointing, train.bf16) == ("eos", True, True)
    assert set(train.lora.target_modules) == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert config.encoder.query_prompt == train.query_prompt == config.evaluate.query_prompt == "query: "


@pytest.mark.parametrize("name", ["reranker", "qwen2.5-3b-reranker"])
def test_a_recipe_for_a_reranker_trains_one_beside_the_retriever_of_another_recipe(name: str) -> None:
    config = read(recipe=["e5-base", name], train={"steps": 9}, train_reranker={"steps": 5})
    assert (config.train.steps, config.train.temperature) == (9, 0.01)
    assert (config.train_reranker.steps, config.train_reranker.num_negatives) == (5, 7)
    assert parse(config.train_reranker.model)[0] == "hub"
    assert read(recipe=name, train_reranker=None).train_reranker is None
    assert "recipe" not in config.model_dump(mode="json")


def test_an_unset_reranker_leaves_the_identity_of_a_curation_as_it_was() -> None:
    assert "train_reranker" not in semantic(read())
    wanted = {"model": "path:mine"}
    assert semantic(read(train_reranker=wanted))["train_reranker"]["model"] == "path:mine"


def test_a_reranker_needs_an_encoder_with_weights_whose_passages_it_ranks() -> None:
    far = {"kind": "openai_embeddings", "model": "m", "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigError, match="train_reranker: null expected: training starts from weights"):
        read(encoder=far, train=None, train_reranker={"model": "path:mine"})


def test_what_the_configuration_says_itself_counts_more_and_the_record_holds_what_came_out() -> None:
    config = read(recipe="e5-base", train={"steps": 9}, encoder={"model": "package:minilm"})
    assert (config.train.steps, config.train.temperature, config.encoder.model) == (9, 0.01, "package:minilm")
    kept = config.model_dump(mode="json")
    assert "recipe" not in kept
    assert parse_config(kept, "stored").train == config.train
    assert read(recipe="e5-base", train=None).train is None


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"recipe: one of e5-base, qwen2\.5-3b-reranker, .*static-embedding expected, got 'e5'"
    ):
        read(recipe="e5")


def test_prompts_and_lengths_of_training_and_evaluation_are_the_encoder_s() -> None:
    config = read(encoder={"query_prompt": "query: ", "passage_prompt": "passage: ", "max_seq_length": 200})
    for section in (config.train, config.evaluate):
        read_by = (section.query_prompt, section.passage_prompt, section.max_seq_length)
        assert read_by == ("query: ", "passage: ", 200)


def test_other_prompts_than_those_of_mining_are_refused_with_what_to_do(tmp_path: Path) -> None:
    text = "encoder: {query_prompt: 'query: '}\ntrain: {query_prompt: ''}\nevaluate: {passage_prompt: 'about '}\n"
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    told = str(refused.value).splitlines()
    assert len(told) == 2
    assert "train.query_prompt: 'query: ' expected, as encoder.query_prompt says" in told[0]
    assert "evaluate.passage_prompt: '' expected" in told[1]
    assert told[1].endswith("remove it, and set encoder.passage_prompt")
    assert load(tmp_path, "encoder: {query_prompt: 'query: '}\ntrain: null\n").train is None


def test_an_evaluation_that_reads_less_than_the_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at least train\.max_seq_length=200 expected, got 100"):
        load(tmp_path, "train: {max_seq_length: 200}\nevaluate: {max_seq_length: 100}\n")


def test_what_a_store_holds_already_is_still_read() -> None:
    old = {"encoder": {"query_prompt": "query: "}, "train": {"query_prompt": "", "max_seq_length": 128}}
    assert read(**old).train.query_prompt == ""


def cranfield() -> dict[str, pl.DataFrame]:
    """Each query with all its relevant passages, and 20 others that share the most words with it as its negatives."""
    corpus = [json.loads(line) for line in (DATA / "cranfield" / "corpus.jsonl").read_text().splitlines()]
    asked = [json.loads(line) for line in (DATA / "cranfield" / "queries.jsonl").read_text().splitlines()]
    lines = (DATA / "cranfield" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    relevant: dict[str, list[str]] = {}
    for query_id, doc_id, _ in (line.split("\t") for line in lines):
        relevant.setdefault(query_id, []).append(doc_id)
    hashes = {one["_id"]: hash_passage(one.get("title", ""), one["text"]) for one in corpus}
    words = {one["_id"]: set(one["text"].split()) for one in corpus}
    queries, instances = [], []
    for one in asked:
        positives = sorted(relevant.get(one["_id"], []))
        texts = {hashes[doc] for doc in positives}
        wanted = set(one["text"].split())
        others = [doc for doc in words if hashes[doc] not in texts]
        negatives = sorted(others, key=lambda doc: (-len(wanted & words[doc]), doc))[:20]
        query_hash = hash_text(one["text"])
        queries.append(("c", one["_id"], one["text"], query_hash, "train"))
        texts_hash = combine_hashes([query_hash, *(hashes[doc] for doc in (*positives, *negatives))])
        instances.append(("c", one["_id"], positives, negatives, "relabel", texts_hash))
    passages = [("c", one["_id"], one.get("title", ""), one["text"], hashes[one["_id"]]) for one in corpus]
    made = {"queries": queries, "instances": [row for row in instances if row[2]], "passages": passages}
    tables = {"queries": schemas.QUERIES, "instances": schemas.INSTANCES, "passages": schemas.PASSAGES}
    return {name: pl.DataFrame(made[name], schema=table.columns, orient="row") for name, table in tables.items()}


def faulty_rows(rows: Rows, config: TrainConfig, known: Pairs) -> tuple[int, int]:
    """Count the rows with an own positive among their negatives, and all rows, over every batch of a training."""
    of_query: dict[int, set[int]] = {}
    for row in rows.rows:
        of_query.setdefault(row.query, set()).update(row.positives)
    own = Pairs.of(rows.known.texts, *zip(*((q, p) for q, found in of_query.items() for p in found), strict=True))
    rotation = Rotation(rows.rows, config)
    faulty = total = 0
    for step in range(config.steps):
        first = step * config.batch_size
        labels = torch.tensor([rotation.place(first + place).numbers for place in range(config.batch_size)])
        vectors = [torch.ones(config.batch_size, 2) for _ in range(labels.shape[1])]
        compared = compare(vectors, labels, Lookup(known), rotation.positives)
        positive = Lookup(own)(labels[:, :1], labels[:, 1:].T.reshape(1, -1))
        faulty += int((positive & ~compared.hidden).any(dim=1).sum())
        total += len(labels)
    return faulty, total


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason=f"the development collections are not in {DATA}")
def test_no_row_of_any_recipe_has_an_own_positive_among_its_negatives_and_every_batch_is_full() -> None:
    tables = cranfield()
    for name in (None, *RECIPES):
        train = read(**({} if name is None else {"recipe": name})).train
        for objective in ("infonce", "all_positives"):
            steps = 2 * tables["instances"].height // train.batch_size + 1  # two epochs
            config = train.model_copy(update={"steps": steps, "objective": objective})
            rows = training_rows(config, **tables)
            assert len(rows) == tables["instances"].height > 200
            assert faulty_rows(rows, config, rows.known) == (0, steps * config.batch_size)
    unmasked = Pairs.of(rows.known.texts, [], [])
    faulty, total = faulty_rows(rows, config.model_copy(update={"objective": "infonce"}), unmasked)
    assert faulty > 0.3 * total  # without the mask many rows have one
