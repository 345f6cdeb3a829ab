from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from tasks import prompting
from tasks.hashing import combine_hashes, hash_passage, hash_text
from tasks.prompting import Prompt, clip, join_texts, load_prompt, neutralise, prompt_digest

QUERIES = pl.DataFrame(
    {"dataset": ["d"], "query_id": ["q"], "text": ["what"], "text_hash": [hash_text("what")], "split": ["train"]}
)
PASSAGES = pl.DataFrame(
    [
        {"dataset": "d", "doc_id": doc_id, "title": title, "text": text, "text_hash": hash_passage(title, text)}
        for doc_id, title, text in (("n", "", "negative"), ("p1", "T", "one"), ("p2", "", "two"), ("x", "", "unused"))
    ]
)
POSITIVES = (
    PASSAGES.filter(pl.col("doc_id").str.starts_with("p"))
    .with_columns(query_id=pl.lit("q"), source=pl.lit("label"))
    .select("dataset", "query_id", "doc_id", "text_hash", "source")
)
POSITIVES_HASH = combine_hashes(sorted(POSITIVES["text_hash"]))


def candidate(**changes: str) -> pl.DataFrame:
    row = {
        "dataset": "d",
        "query_id": "q",
        "doc_id": "n",
        "text_hash": hash_passage("", "negative"),
        "query_hash": hash_text("what"),
        "positives_hash": POSITIVES_HASH,
    }
    return pl.DataFrame([row | changes])


def join(candidates: pl.DataFrame) -> pl.DataFrame:
    return join_texts(candidates, queries=QUERIES, passages=PASSAGES, positives=POSITIVES)


def test_the_yes_no_prompt_has_two_questions_and_disjoint_spellings() -> None:
    prompt = load_prompt("yes_no")
    assert len(prompt.questions) == 2
    assert {"Yes", " yes"} <= prompt.yes
    assert {"No", " no"} <= prompt.no
    assert not prompt.yes & prompt.no


def test_paper_7_10_an_unknown_prompt_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ValueError, match="one of yes_no expected, got 'v1'"):
        load_prompt("v1")
    with pytest.raises(ValueError, match=r"\.\./secret"):
        prompt_digest("../secret")


def test_the_digest_follows_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("a")
    first = prompt_digest("mine")
    (tmp_path / "mine.yaml").write_text("b")
    assert len(first) == 64
    assert prompt_digest("mine") != first


def test_a_template_without_its_place_for_the_text_is_refused() -> None:
    fields = load_prompt("yes_no").model_dump() | {"candidate": "<passage></passage>"}
    with pytest.raises(ValidationError, match="exactly once"):
        Prompt.model_validate(fields)


def test_prompts_of_one_query_share_everything_before_the_candidate() -> None:
    prompt = load_prompt("yes_no")
    one = prompt.render("what", ["p"], "first", 1)
    two = prompt.render("what", ["p"], "second", 1)
    shared = one[: one.index("first")]
    assert two.startswith(shared)
    assert shared.index("what") < shared.index("<known_relevant>\np\n")


def test_a_text_that_holds_a_placeholder_is_not_filled_in() -> None:
    prompt = load_prompt("yes_no")
    assert "{text} {query}" in prompt.render("{text} {query}", [], "c", 1)


@pytest.mark.parametrize(
    "attack",
    ["</passage>", "< /passage>", "<PASSAGE>", "<|im_end|>", "<\uff5cend\uff5c>", "</s>", "<!--", "[INST]", "[/INST]"],
)
def test_paper_7_11_no_text_can_open_or_close_a_tag_or_spell_a_control_token(attack: str) -> None:
    quiet = neutralise(f"a {attack} b")
    assert attack not in quiet
    assert len(quiet) == len(f"a {attack} b")


def test_comparisons_and_brackets_of_ordinary_prose_stay() -> None:
    assert neutralise("if a < b and x[0] <= 3: [inst] Doc (3)") == "if a < b and x[0] <= 3: [inst] Doc (3)"


def test_a_cut_is_marked_and_a_short_text_is_not_touched() -> None:
    assert clip("one two", 4) == "one […]"
    assert clip("one", 3) == "one"


def test_titles_are_shown_and_positives_come_in_the_order_of_their_hashes() -> None:
    joined = join(candidate())
    texts = {hash_passage("T", "one"): "T one", hash_passage("", "two"): "two"}
    assert joined["query"].to_list() == ["what"]
    assert joined["passage"].to_list() == ["negative"]
    assert joined["positives"].to_list() == [[texts[key] for key in sorted(texts)]]


def test_an_empty_table_of_candidates_is_joined_to_an_empty_table() -> None:
    assert join(candidate().clear()).is_empty()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_hash": "old"}, "do not fit `queries`: query_hash old expected"),
        ({"text_hash": "old"}, "do not fit `passages`: text_hash old expected"),
        ({"positives_hash": "old"}, "do not fit `positives`: positives_hash old expected"),
        ({"doc_id": "gone"}, "no such row came, first for d/q/gone"),
        ({"query_id": "gone"}, "no such row came, first for d/gone/n"),
    ],
)
def test_a_pair_whose_texts_changed_or_vanished_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join(candidate(**changes))


def test_a_positive_whose_passage_vanished_is_refused() -> None:
    passages = PASSAGES.filter(pl.col("doc_id") != "p2")
    with pytest.raises(ValueError, match="no such row came, first for d/q/p2"):
        join_texts(candidate(), queries=QUERIES, passages=passages, positives=POSITIVES)
