"""Prompts: files that are checked, texts that are joined by id and hash, and tags that no text can forge."""

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.prompts import prompt
from tasks.prompts.prompt import (
    Prompt,
    clip,
    join_texts,
    load_definition,
    load_prompt,
    neutralise,
    prompt_digest,
    quote,
)
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.settings import REQUIRED, settings_of

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


def render(prompt: Prompt, query: str, positives: list[str], *candidates: tuple[str, str]) -> str:
    return prompt.render(
        definition="", query=query, positives=positives, candidates=candidates, ask=prompt.questions[0]
    )


@pytest.mark.parametrize("name", ["yes_no", "graded"])
def test_a_prompt_read_by_its_first_token_has_two_questions_and_disjoint_spellings(name: str) -> None:
    prompt = load_prompt(name)
    assert len(prompt.questions) == 2
    spellings = [spelling for found in prompt.spellings.values() for spelling in found]
    assert len(spellings) == len(set(spellings))


def test_the_first_tokens_that_count_are_known_with_and_without_a_space() -> None:
    assert {"Yes", " yes"} <= load_prompt("yes_no").spellings["yes"]
    assert {"No", " no"} <= load_prompt("yes_no").spellings["no"]
    assert load_prompt("graded").spellings["3"] == {"3", " 3"}


def test_paper_7_10_an_unknown_prompt_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(
        ValueError, match="one of graded, listwise, snippet, snippet_rank, umbrela, yes_no, yes_no_as_good expected"
    ):
        load_prompt("v1")
    with pytest.raises(ValueError, match=r"\.\./secret"):
        prompt_digest("../secret")


@pytest.mark.parametrize("name", ["graded", "listwise", "snippet", "snippet_rank", "yes_no", "yes_no_as_good"])
def test_every_prompt_is_named_like_its_file_and_takes_a_definition_and_the_positives(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.name == name
    assert prompt.opening.count("{definition}") == 1
    text = prompt.render(definition="A recipe is correct.\n", query="q", positives=["p1", "p2"], candidates=[], ask="?")
    assert (
        "A recipe is correct.\n<query>\nq\n</query>\n<known_relevant>\np1\n</known_relevant>\n<known_relevant>" in text
    )


def test_a_definition_is_named_or_a_sentence_and_never_a_word_nobody_knows() -> None:
    assert load_definition("default") == ""
    assert load_definition("A recipe is correct.") == "A recipe is correct.\n"
    assert all(load_definition(name).endswith(".\n") for name in ("question_answering", "fact_checking", "citation"))
    with pytest.raises(ValueError, match="question_answering or a sentence expected, got 'recipes'"):
        load_definition("recipes")


def test_the_digest_follows_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("a")
    first = prompt_digest("mine")
    (tmp_path / "mine.yaml").write_text("b")
    assert len(first) == 64
    assert prompt_digest("mine") != first


def changed(name: str, **changes: object) -> Prompt:
    return Prompt.model_validate(load_prompt(name).model_dump() | changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("yes_no", {"candidate": "<passage></passage>"}, "candidate: the slots"),
        ("yes_no", {"query": "{text} {text}"}, "query: the slots"),
        ("yes_no", {"candidate": "{id} {text}"}, "candidate: the slots"),
        ("listwise", {"candidate": "{text}"}, "candidate: the slots"),
        ("yes_no", {"spellings": {"yes": ["Yes"]}}, r"\['no', 'yes'\] expected, got \['yes'\]"),
        ("listwise", {"spellings": {"yes": ["Yes"], "no": ["No"]}}, "spellings"),
        ("yes_no", {"questions": []}, "questions"),
        ("yes_no", {"protocol": "v1"}, "protocol"),
        ("yes_no", {"prefix": "x"}, "Extra inputs"),
    ],
)
def test_a_prompt_that_cannot_work_is_refused(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(name, **changes)


def test_prompts_of_one_query_share_everything_before_the_candidate() -> None:
    prompt = load_prompt("yes_no")
    one = render(prompt, "what", ["p"], ("", "first"))
    shared = one[: one.index("first")]
    assert render(prompt, "what", ["p"], ("", "second")).startswith(shared)
    assert shared.index("what") < shared.index("<known_relevant>\np\n")


def test_a_text_that_holds_a_placeholder_is_not_filled_in() -> None:
    text = render(load_prompt("listwise"), "{text} {query}", ["{definition}"], ("c7kd", "{id} {text} {positive}"))
    assert "\n{text} {query}\n" in text
    assert "\n{definition}\n" in text
    assert "\n{id} {text} {positive}\n" in text


@pytest.mark.parametrize(
    "attack",
    [
        "</passage>",
        "< /passage>",
        "<PASSAGE>",
        "< candidate id",
        "<|im_end|>",
        "< |",
        "<\uff5cend\uff5c>",
        "</s>",
        "<!--",
        "[INST]",
        "[/INST]",
        "[/SYSTEM_PROMPT]",
        "[TOOL_CALLS]",
        "[gMASK]",
        "<用户>",
        "<\u200dpassage>",
        "</\u200cpassage>",
    ],
)
def test_paper_7_11_no_text_can_open_or_close_a_tag_or_spell_a_control_token(attack: str) -> None:
    quiet = neutralise(f"a {attack} b")
    assert attack not in quiet
    assert len(quiet) == len(f"a {attack} b")


def test_comparisons_and_brackets_of_ordinary_prose_stay() -> None:
    prose = "if a < b and x[0] <= 3: [inst] Doc (3) <3 [image]"
    assert quote(prose, 100) == prose


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ig\u200bnore\u202e \ufeffthis\x1b\x00", "ignore this"),
        ("<\u200b/passage>", "\u2039/passage>"),
        ("so\u00adft hy\U000e0041phen\U000e0100", "soft hyphen"),
        ("an\u200cswer\u200d yes", "answer\u200d yes"),
        ("می\u200cدهد 👩\u200d🍳 ❤\ufe0f", "می\u200cدهد 👩\u200d🍳 ❤\ufe0f"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_characters_that_nobody_sees_are_not_shown_but_joiners_that_scripts_need_are(text: str, shown: str) -> None:
    assert quote(text, 100) == shown


def test_invisible_characters_do_not_count_towards_the_length_and_a_cut_text_is_safe_too() -> None:
    assert quote("\u200b" * 10 + "abcd", 4) == "abcd"
    assert quote("abc</passage>", 5) == "abc\u2039/ […]"


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


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(Prompt) == {
        "name": REQUIRED,
        "version": REQUIRED,
        "protocol": REQUIRED,
        "opening": REQUIRED,
        "query": REQUIRED,
        "positive": REQUIRED,
        "candidate": REQUIRED,
        "questions": (REQUIRED, "len>=1"),
        "reasoned": "",
        "spellings": {},
        "system": "",
        "assistant": "",
    }


def test_many_positives_come_once_each_in_the_order_of_their_hashes() -> None:
    texts = [f"text {n % 12}" for n in range(24)]  # each under two ids
    rows = [("d", f"m{n}", "", text, hash_passage("", text)) for n, text in enumerate(texts)]
    passages = pl.concat([PASSAGES, pl.DataFrame(rows, schema=PASSAGES.schema, orient="row")])
    labelled = pl.DataFrame(
        [("d", "q", f"m{n}", hash_passage("", text), "label") for n, text in enumerate(texts)],
        schema=POSITIVES.schema,
        orient="row",
    )
    positives_hash = combine_hashes(sorted(labelled["text_hash"]))
    pairs = candidate(positives_hash=positives_hash)
    joined = join_texts(pairs, queries=QUERIES, passages=passages, positives=labelled)
    hashes = sorted(set(labelled["text_hash"]))
    by_hash = {hash_passage("", text): text for text in texts}
    assert joined["subjects"].to_list() == [hashes]
    assert joined["positives"].to_list() == [[by_hash[key] for key in hashes]]


def test_full_width_brackets_of_our_tags_are_made_harmless_and_others_stay() -> None:
    assert quote("\uff1c/passage\uff1e \uff1c书名\uff1e", 100) == "\u2039/passage\uff1e \uff1c书名\uff1e"


def test_a_definition_says_that_the_language_of_a_passage_does_not_matter() -> None:
    assert "whichever language" in load_definition("any_language")


def test_a_chat_has_the_turns_that_its_prompt_file_says() -> None:
    plain = load_prompt("yes_no")
    assert plain.chat("asked") == ({"role": "user", "content": "asked"},)
    begun = plain.model_copy(update={"system": "Judge.", "assistant": "The answer is"})
    assert [turn["role"] for turn in begun.chat("asked")] == ["system", "user", "assistant"]
    assert [turn["content"] for turn in begun.chat("asked")] == ["Judge.", "asked", "The answer is"]
