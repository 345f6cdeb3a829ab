"""The gold set: what is read of it, what is left out and why, and how judges compare with it."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from tasks.lines import ReadLimits
from tasks.prompts.prompt import join_texts
from tasks.quality import gold_set
from tasks.quality.gold_set import GoldConfig, GoldError, agree_gold, read_gold
from tasks.schemas import CANDIDATES, GOLD, GOLD_AGREEMENT, GOLD_VERDICTS, PASSAGES, POSITIVES, QUERIES, VERDICTS
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.settings import settings_of

CASES = Path(__file__).parents[2] / "cases"
ROW = {"query": "what", "positives": ["yes", "also yes"], "passage": "this", "label": "relevant"}


def read(tmp_path: Path, *rows: object) -> dict[str, pl.DataFrame]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / "gold.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_gold(GoldConfig(dataset="nq"), source=tmp_path)


def test_gold_pairs_are_laid_out_as_the_judges_read_everything_else(tmp_path: Path) -> None:
    made = read(
        tmp_path, ROW, {**ROW, "passage": "that", "label": "not_relevant", "title": "T", "dataset": "fever"},
        {**ROW, "positives": ["yes"]},
    )  # fmt: skip
    for name, schema in (
        ("queries", QUERIES), ("passages", PASSAGES), ("positives", POSITIVES), ("candidates", CANDIDATES),
        ("gold", GOLD),
    ):  # fmt: skip
        assert dict(made[name].schema) == schema.columns
        assert not made[name].select(schema.key).is_duplicated().any()
    assert made["gold"].group_by("dataset").len().sort("dataset").rows() == [("fever", 1), ("nq", 2)]
    texts = {name: made[name] for name in ("queries", "passages", "positives")}
    pairs = join_texts(made["candidates"], **texts)  # refuses hashes that do not fit
    fever = pairs.filter(dataset="fever").row(0, named=True)
    assert (fever["query"], fever["passage"], sorted(fever["positives"])) == ("what", "T that", ["also yes", "yes"])
    row = made["candidates"].filter(dataset="fever").row(0, named=True)
    assert row["query_hash"] == hash_text("what")
    assert row["text_hash"] == row["doc_id"] == hash_passage("T", "that")
    assert row["positives_hash"] == combine_hashes(sorted(hash_passage("", text) for text in ("yes", "also yes")))


def test_ids_stay_when_rows_are_added(tmp_path: Path) -> None:
    before = read(tmp_path, ROW)["candidates"]
    after = read(tmp_path, {**ROW, "query": "another"}, ROW)["candidates"]
    assert before.join(after, on=["dataset", "query_id", "doc_id"], how="semi").height == 1


def test_what_splits_lines_elsewhere_splits_no_row(tmp_path: Path) -> None:
    row = {**ROW, "passage": "two\u2028lines\u0085of text"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_gold(GoldConfig(dataset="nq"), source=tmp_path)["gold"].height == 1


def test_a_line_over_the_limit_is_a_reject_and_a_wrong_label_is_shown_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gold_set, "_LIMITS", ReadLimits(line_bytes=1_000))
    long = {**ROW, "query": "x" * 1_000}
    made = read(tmp_path, long, f'{{"a": {"[" * 70 + "]" * 70}}}', {**ROW, "label": "y" * 800}, ROW)
    assert made["gold"].height == 1
    size = len(json.dumps(long))
    assert made["rejects"].select("key", "reason", "detail").rows() == [
        ("gold.jsonl:1", "line_too_long", f"the line is {size} bytes long, at most 1000 expected"),
        ("gold.jsonl:2", "too_deep", "more than 64 nested lists and objects"),
        ("gold.jsonl:3", "unknown_label", f"relevant or not_relevant expected, '{'y' * 79} came"),
    ]


def test_rows_that_cannot_be_used_are_counted_with_their_reason(tmp_path: Path) -> None:
    made = read(
        tmp_path, ROW, dict(ROW), "{", [1], {**ROW, "label": "maybe"}, {**ROW, "query": " "}, {**ROW, "passage": 7},
        {**ROW, "positives": []}, {**ROW, "positives": "yes"}, {**ROW, "passage": "yes"},
        {**ROW, "passage": "disputed"}, {**ROW, "passage": "disputed", "label": "not_relevant"},
    )  # fmt: skip
    counts = dict(made["rejects"].group_by("reason").len().iter_rows())
    assert counts == {
        "duplicate": 1, "broken_json": 1, "wrong_type": 1, "unknown_label": 1, "no_text": 2, "no_positives": 2,
        "passage_is_positive": 1, "contradiction": 2,
    }  # fmt: skip
    assert made["gold"].height == 1
    with pytest.raises(GoldError, match=r"no usable row \(no_text, first at gold.jsonl:1: query: a text expected\)"):
        read(tmp_path, {**ROW, "query": ""})
    with pytest.raises(GoldError, match="the file holds no line"):
        read(tmp_path)


def test_unsure_and_unparsed_agree_with_no_label() -> None:
    gold = pl.DataFrame(
        [("d", "q", f"n{i}", "relevant" if i % 2 else "not_relevant") for i in range(8)],
        schema=GOLD.columns,
        orient="row",
    )

    def verdicts(tier: str, *states: str) -> pl.DataFrame:
        rows = [("d", "q", f"n{i}", tier, "j", s, 0.5, None, None, None, 1) for i, s in enumerate(states)]
        return pl.DataFrame(rows, schema=VERDICTS.columns, orient="row")

    made = agree_gold(
        GoldConfig(tiers=("llm",)),
        gold=gold,
        similarity=verdicts("similarity", *["not_relevant", "relevant"] * 4),
        llm_verdicts=verdicts("llm", *["unsure", "relevant"] * 3, "unparsed", "relevant"),
        decisions=verdicts("cascade", *["not_relevant"] * 8),
    )
    assert dict(made["agreement"].schema) == GOLD_AGREEMENT.columns
    assert dict(made["verdicts"].schema) == GOLD_VERDICTS.columns
    rows = {row["tier"]: row for row in made["agreement"].to_dicts()}
    assert (rows["similarity"]["accuracy"], rows["similarity"]["kappa"]) == (1.0, 1.0)
    assert (rows["llm"]["accuracy"], rows["llm"]["unparsed"]) == (0.5, 1)
    assert rows["cascade"]["kappa"] == 0.0
    assert rows["cascade"]["accuracy_low"] < 0.5 < rows["cascade"]["accuracy_high"]
    assert made["verdicts"].height == 24


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(GoldConfig) == {"dataset": "gold", "tiers": ("llm",)}


def test_a_duplicate_names_the_row_before_and_a_contradiction_both_rows(tmp_path: Path) -> None:
    made = read(tmp_path, ROW, ROW, {**ROW, "passage": "x"}, {**ROW, "passage": "x", "label": "not_relevant"})
    assert made["rejects"].rows() == [
        ("read_gold", "gold.jsonl:2", "duplicate", "the same texts with the same label stand before"),
        ("read_gold", "gold.jsonl:4", "contradiction", "the other label stands at gold.jsonl:3"),
        ("read_gold", "gold.jsonl:3", "contradiction", "the other label stands below"),
    ]
    assert made["gold"]["label"].to_list() == ["relevant"]


def test_candidates_of_a_query_are_ranked_from_one_and_are_training_queries(tmp_path: Path) -> None:
    made = read(tmp_path, ROW, {**ROW, "passage": "that"}, {**ROW, "query": "other"})
    assert sorted(made["candidates"]["rank"]) == [1, 1, 2]
    assert made["queries"]["split"].unique().to_list() == ["train"]
    assert made["candidates"]["retriever"].unique().to_list() == ["gold"]


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.jsonl").write_text("\ufeff" + json.dumps(ROW) + "\n\n{\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n\xff\n")
    made = read_gold(GoldConfig(), source=tmp_path)
    assert made["rejects"].select("key", "reason").rows() == [
        ("a/one.jsonl:3", "broken_json"), ("b.jsonl:1", "duplicate"), ("b.jsonl:2", "not_utf8"),
    ]  # fmt: skip
    assert made["gold"]["dataset"].to_list() == ["gold"]


def test_bytes_that_are_not_utf8_are_a_reject_and_no_other_text(tmp_path: Path) -> None:
    latin = json.dumps({**ROW, "query": "café how"}, ensure_ascii=False).encode("latin-1")
    (tmp_path / "gold.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + latin + b"\n")
    made = read_gold(GoldConfig(), source=tmp_path)
    assert made["queries"]["text"].to_list() == ["what"]
    assert made["rejects"].select("key", "reason").rows() == [("gold.jsonl:2", "not_utf8")]
    with pytest.raises(GoldError, match=r"not_utf8, first at gold\.jsonl:1: byte 0xe9"):
        read_gold(GoldConfig(), source=CASES / "gold-latin1")


def test_a_gzip_file_is_read_and_one_that_ends_early_is_a_reject(tmp_path: Path) -> None:
    lines = "".join(f"{json.dumps({**ROW, 'query': f'what is {n}'})}\n" for n in range(200))
    packed = gzip.compress(lines.encode())
    (tmp_path / "gold.jsonl.gz").write_bytes(packed)
    assert read_gold(GoldConfig(), source=tmp_path)["gold"].height == 200
    (tmp_path / "gold.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    made = read_gold(GoldConfig(), source=tmp_path)
    assert made["rejects"]["reason"].to_list() == ["broken_gzip"]
    assert 0 < made["gold"].height < 200


def test_names_and_titles_of_another_type_are_rejects_and_hostile_ones_are_cleaned(tmp_path: Path) -> None:
    made = read(tmp_path, {**ROW, "title": 5}, {**ROW, "dataset": ["x"]}, {**ROW, "dataset": "a\ud800\tb"})
    assert made["rejects"].select("reason", "detail").rows() == [
        ("wrong_type", "title is a number, expected a string"), ("wrong_type", "dataset is a list, expected a string"),
    ]  # fmt: skip
    assert made["gold"]["dataset"].to_list() == ["a  b"]
