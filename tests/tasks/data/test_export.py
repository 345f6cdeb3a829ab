"""Export: what is written can be read back, and is the same bytes for the same instances."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tasks import schemas
from tasks.data import export as export_module
from tasks.data.export import FORMATS, ExportConfig, export
from tasks.data.on_disk import sorted_rows
from tasks.guards.tables import DO_NOT_BATCH
from tasks.texts import combine_hashes, hash_passage, hash_text
from tests.tasks.data.inputs import ingest_parts
from tests.tasks.data.writing.sets import Parts, Row, Texts, decided, in_parts, pairs, teacher
from tests.tasks.data.writing.sets import tables as tables_of
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

_SCHEMAS = {"instances": schemas.INSTANCES, "queries": schemas.QUERIES, "passages": schemas.PASSAGES}
TEXTS = {"d1": ("One", "first"), "d2": ("", "second"), "d3": ("", "third\u2028é"), "d4": ("", "unused")}
QUERIES = {("a", "q1"): "about one", ("b", "q1"): "about three"}
# dataset, query_id, positives, negatives: unequal on purpose
ROWS = [("b", "q1", ["d3"], []), ("a", "q1", ["d2", "d1"], ["d3"])]


def _passages() -> pl.DataFrame:
    rows = [
        (dataset, doc_id, title, text, hash_passage(title, text))
        for dataset in "ab"
        for doc_id, (title, text) in TEXTS.items()
    ]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


def _queries() -> pl.DataFrame:
    rows = [(*key, text, hash_text(text), "train") for key, text in QUERIES.items()]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def _instances(rows: list[tuple[str, str, list[str], list[str]]]) -> pl.DataFrame:
    made = []
    for dataset, query_id, positives, negatives in rows:
        documents = [hash_passage(*TEXTS[doc_id]) for doc_id in (*positives, *negatives)]
        texts_hash = combine_hashes([hash_text(QUERIES[dataset, query_id]), *documents])
        made.append((dataset, query_id, positives, negatives, "relabel", texts_hash))
    return pl.DataFrame(made, schema=schemas.INSTANCES.columns, orient="row")


def _export(out: Path, instances: pl.DataFrame | None = None, **config: object) -> dict[str, Any]:
    """Export and return what `export.json` says."""
    made = export(
        ExportConfig.model_validate(config),
        instances=_instances(ROWS) if instances is None else instances,
        queries=_queries(),
        passages=_passages(),
        out=out,
    )
    assert made == {}
    summary: dict[str, Any] = json.loads((out / "export.json").read_text(encoding="utf-8"))
    return summary


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def _together(out: Path, name: str) -> Path:
    """Put the rows with and without negatives of a format into one folder."""
    (out / "all").mkdir()
    for number, folder in enumerate((name, f"{name}-without-negatives")):
        shutil.copyfile(out / folder / "train.jsonl", out / "all" / f"{number}.jsonl")
    return out / "all"


def _copies(out: Path, *folders: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and (not folders or path.relative_to(out).parts[0] in folders)
    }


def test_tevatron_rows_are_sorted_and_keep_the_order_of_positives(tmp_path: Path) -> None:
    summary = _export(tmp_path, formats=["tevatron"])
    assert _lines(tmp_path / "tevatron" / "train.jsonl") == [
        {
            "query_id": "q1",
            "query": "about one",
            "positive_passages": [
                {"docid": "d2", "text": "second", "title": ""},
                {"docid": "d1", "text": "first", "title": "One"},
            ],
            "negative_passages": [{"docid": "d3", "text": "third\u2028é", "title": ""}],
            "subset": "a",
        },
    ]
    assert _lines(tmp_path / "tevatron-without-negatives" / "train.jsonl") == [
        {
            "query_id": "q1",
            "query": "about three",
            "positive_passages": [{"docid": "d3", "text": "third\u2028é", "title": ""}],
            "negative_passages": [],
            "subset": "b",
        },
    ]
    assert summary["formats"] == {"tevatron": {"rows": 1, "without_negatives": 1}}
    assert (summary["instances"], summary["datasets"], summary["without_negatives"]) == (2, {"a": 1, "b": 1}, 1)
    assert summary["treatments"] == {"relabel": 2}


def test_flagembedding_rows_show_title_and_text(tmp_path: Path) -> None:
    _export(tmp_path, formats=["flagembedding"])
    assert _lines(tmp_path / "flagembedding" / "train.jsonl") == [
        {"query": "about one", "pos": ["second", "One first"], "neg": ["third\u2028é"]}
    ]
    assert _lines(tmp_path / "flagembedding-without-negatives" / "train.jsonl") == [
        {"query": "about three", "pos": ["third\u2028é"], "neg": []}
    ]


def test_what_tevatron_export_writes_ingest_reads_back_as_the_same_rows(tmp_path: Path) -> None:
    _export(tmp_path, formats=["tevatron"])
    out = ingest_parts(_together(tmp_path, "tevatron"), dataset="none")
    assert out["rejects"].is_empty()
    key = ["dataset", "query_id"]
    assert pl.concat(out["queries"]).sort(key).equals(_queries())
    positives, given = (
        pl.concat(out[name]).sort("rank" if name == "given" else "doc_id") for name in ("positives", "given")
    )
    again = {
        row[:2]: (
            positives.filter(dataset=row[0])["doc_id"].to_list(),
            given.filter(dataset=row[0])["doc_id"].to_list(),
        )
        for row in ROWS
    }
    assert again == {(row[0], row[1]): (sorted(row[2]), row[3]) for row in ROWS}

    passages = pl.concat(out["passages"])
    assert passages.join(_passages(), on=passages.columns, how="anti").is_empty()
    instances = _instances([(row[0], row[1], *again[row[0], row[1]]) for row in ROWS])
    export(
        ExportConfig(), instances=instances, queries=pl.concat(out["queries"]), passages=passages, out=tmp_path / "2"
    )
    _export(tmp_path / "3", instances=instances)
    assert _copies(tmp_path / "2") == _copies(tmp_path / "3")


def test_what_flagembedding_export_writes_ingest_reads_back_as_the_same_texts(tmp_path: Path) -> None:
    _export(tmp_path, formats=["flagembedding"])
    out = ingest_parts(_together(tmp_path, "flagembedding"), dataset="x")
    assert out["rejects"].is_empty()
    assert sorted(pl.concat(out["passages"])["text"]) == ["One first", "second", "third\u2028é"]
    assert (pl.concat(out["positives"]).height, pl.concat(out["given"]).height) == (3, 1)


def test_a_beir_folder_holds_the_instances_passages_only_and_is_read_back(tmp_path: Path) -> None:
    summary = _export(tmp_path, formats=["beir"])
    assert summary["formats"]["beir"] == {"documents": 4, "queries": 2, "qrels": 3}
    assert summary["not_held"] == {"beir": {"negatives": 1}}
    assert [line["_id"] for line in _lines(tmp_path / "beir" / "a" / "corpus.jsonl")] == ["d1", "d2", "d3"]
    qrels = (tmp_path / "beir" / "a" / "qrels" / "train.tsv").read_text(encoding="utf-8")
    assert qrels == "query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td1\t1\n"

    out = ingest_parts(tmp_path / "beir" / "a", dataset="a", test_split=None)
    assert out["rejects"].is_empty()
    assert pl.concat(out["positives"]).select("query_id", "doc_id").rows() == [("q1", "d1"), ("q1", "d2")]


def test_trec_qrels_tell_positives_from_negatives(tmp_path: Path) -> None:
    _export(tmp_path, formats=["trec"])
    assert (tmp_path / "trec" / "a.qrels").read_text(encoding="utf-8") == "q1 0 d2 1\nq1 0 d1 1\nq1 0 d3 0\n"


def test_trec_refuses_ids_with_spaces(tmp_path: Path) -> None:
    instances = _instances(ROWS[:1]).with_columns(query_id=pl.lit("q 1"))
    queries = _queries().with_columns(query_id=pl.lit("q 1"))
    config = ExportConfig(formats=("trec",))
    with pytest.raises(ValueError, match="'q 1' of b holds spaces"):
        export(config, instances=instances, queries=queries, passages=_passages(), out=tmp_path)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("nq", "nq"),
        ("BeIR/nq", "BeIR%2Fnq"),
        ("a:b", "a_b-6783a31eabf6"),
        (".nq", "%2Enq"),
        ("../x", "x-d6b96a97d147"),
        ("./data/nq", "data_nq-ec3e6a47f5b4"),
        ("/data/nq.jsonl", "data_nq_jsonl-1b7aa02252eb"),
        ("https://host/nq", "https_host_nq-f36e5524bd9e"),
        ("C:\\data\\nq", "C_data_nq-93b0d40ea0e3"),
        ("nq/", "nq-666c8ca15c2d"),
        ("%2e%2e/nq", "2e_2e_nq-309ab23813d0"),
        ("医療系質問応答データセット第三版日本語訓練用検索評価データ集", "656b0f48b9ed"),
        ("x" * 10_000, "x" * 60 + "-e4ee97ec2527"),
        (".", "cdb4ee2aea69"),
    ],
)
def test_a_datasets_name_becomes_a_file_name_that_the_store_keeps(tmp_path: Path, dataset: str, name: str) -> None:
    instances, queries, passages = (
        frame.with_columns(dataset=pl.lit(dataset)) for frame in (_instances(ROWS[:1]), _queries()[1:], _passages()[:4])
    )
    config = ExportConfig(formats=("trec", "beir"))
    export(config, instances=instances, queries=queries, passages=passages, out=tmp_path / "out")
    files = write_directory(Store.open(str(tmp_path / "store")), "export", tmp_path / "out").files
    beir = (f"beir/{name}/{file}" for file in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"))
    assert set(files) == {"export.json", f"trec/{name}.qrels", *beir}


@pytest.mark.parametrize(
    ("short", "rows", "counts"),
    [
        (
            "pad",
            [
                ("about one", "second", "third\u2028é", "third\u2028é"),
                ("about one", "One first", "third\u2028é", "third\u2028é"),
            ],
            {"rows": 2, "short": 3, "dropped": 0, "pairs": 1},
        ),
        ("drop", [], {"rows": 0, "short": 3, "dropped": 3}),
        (
            "keep",
            [
                ("about one", "second", "third\u2028é", None),
                ("about one", "One first", "third\u2028é", None),
                ("about three", "third\u2028é", None, None),
            ],
            {"rows": 3, "short": 3, "dropped": 0},
        ),
    ],
)
def test_rows_with_too_few_negatives_follow_the_stated_policy(
    tmp_path: Path, short: str, rows: list[tuple[str | None, ...]], counts: dict[str, int]
) -> None:
    summary = _export(tmp_path, formats=["sentence-transformers"], num_negatives=2, short=short)
    frame = pl.read_parquet(tmp_path / "sentence-transformers" / "train.parquet")
    assert frame.columns == ["anchor", "positive", "negative_1", "negative_2"]
    assert frame.rows() == rows
    assert summary["formats"]["sentence-transformers"] == counts


def test_negatives_beyond_the_number_are_left_out_and_none_are_needed_for_pairs(tmp_path: Path) -> None:
    instances = _instances([("a", "q1", ["d1"], ["d4", "d3", "d2"])])
    _export(tmp_path, instances, formats=["sentence-transformers"], num_negatives=1, file_type="jsonl")
    assert _lines(tmp_path / "sentence-transformers" / "train.jsonl") == [
        {"anchor": "about one", "positive": "One first", "negative_1": "unused"}
    ]
    summary = _export(tmp_path, formats=["sentence-transformers"], num_negatives=0)
    assert summary["formats"]["sentence-transformers"] == {"rows": 3, "short": 0, "dropped": 0}


@pytest.mark.parametrize("file_type", ["parquet", "jsonl"])
def test_the_datasets_library_loads_the_tuples(tmp_path: Path, file_type: str) -> None:
    datasets = pytest.importorskip("datasets")
    _export(tmp_path, formats=["sentence-transformers"], num_negatives=1, file_type=file_type)
    loaded = datasets.load_dataset(
        "parquet" if file_type == "parquet" else "json",
        data_files=str(tmp_path / "sentence-transformers" / f"train.{file_type}"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert loaded.column_names == ["anchor", "positive", "negative_1"]
    assert loaded["positive"][:] == ["second", "One first"]
    assert loaded["negative_1"][:] == ["third\u2028é"] * 2


def test_the_same_instances_give_the_same_bytes_whatever_the_order_and_the_rest_of_the_tables(tmp_path: Path) -> None:
    everything = FORMATS[::-1]
    _export(tmp_path / "1", formats=everything)
    used = _passages().filter(pl.col("doc_id") != "d4").reverse()
    config = ExportConfig.model_validate({"formats": everything})
    export(config, instances=_instances(ROWS[::-1]), queries=_queries().reverse(), passages=used, out=tmp_path / "2")
    first = _copies(tmp_path / "1")
    assert len(first) == 18
    assert first == _copies(tmp_path / "2")


@pytest.mark.parametrize("count", [1, 3, 9])
def test_parts_give_the_bytes_of_the_whole_whatever_is_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    draw = random.Random(2)
    texts: Texts = {
        f"d{n}": ("" if n % 3 else f"Title {n}", f"é text {n} " + "w" * draw.randint(1, 90)) for n in range(99)
    }
    rows: list[Row] = []
    for number in range(120):
        found = draw.sample(sorted(texts), draw.choice([1, 3, 8]))
        rows.append((draw.choice(["b", "a", "A b"]), f"q{number * 37 % 120}", found[:1], found[1:]))
    tables = tables_of(rows, texts)
    scored = [
        (row[0], row[1], doc_id, draw.random()) for row in rows for doc_id in (*row[2], *row[3]) if draw.random() < 0.9
    ]
    ranked = [(*row[:2], doc_id, "h", "h", "h", "dense", 1 + n) for row in rows for n, doc_id in enumerate(row[3])]
    tables |= {
        "teacher": teacher(*scored),
        "candidates": pairs(schemas.CANDIDATES, *ranked),
        "decisions": decided(*((*row[:3], "model/1", "relevant", row[3]) for row in scored)),
        "positives": pairs(schemas.POSITIVES, *((*row[:2], row[2][0]) for row in rows)),
        "negatives": pairs(schemas.NEGATIVES, *((*row[:2], doc_id) for row in rows for doc_id in row[3][:2])),
        "extras": pairs(schemas.EXTRAS, *((*row[:2], "prompt", f"for {row[1]}") for row in rows[::3])),
    }
    config = ExportConfig(formats=FORMATS, soft_labels="decision", provenance=True)
    export(config, **tables, out=tmp_path / "whole")
    monkeypatch.setattr(sorted_rows, "PIECE_BYTES", 2_000)
    monkeypatch.setattr(sorted_rows, "_RANGES", 4)
    export(config, **in_parts(tables, count), out=tmp_path / "parts")
    assert len(_copies(tmp_path / "whole")) == 25
    assert _copies(tmp_path / "parts") == _copies(tmp_path / "whole")


def test_a_training_set_without_parts_gives_the_files_of_one_without_rows(tmp_path: Path) -> None:
    config = ExportConfig(formats=FORMATS)
    none = {name: Parts([], schema.empty()) for name, schema in _SCHEMAS.items()}
    export(config, **none, out=tmp_path / "parts")
    export(config, **{name: schema.empty() for name, schema in _SCHEMAS.items()}, out=tmp_path / "whole")
    assert _copies(tmp_path / "parts") == _copies(tmp_path / "whole")


def test_a_text_that_changed_since_the_instance_was_made_is_refused(tmp_path: Path) -> None:
    changed = _passages().with_columns(text_hash=pl.when(doc_id="d3").then(pl.lit("0" * 32)).otherwise("text_hash"))
    with pytest.raises(ValueError, match=r"instance a/q1: texts_hash is .*, its texts now give"):
        export(ExportConfig(), instances=_instances(ROWS), queries=_queries(), passages=changed, out=tmp_path)


def test_negatives_in_another_order_are_another_instance(tmp_path: Path) -> None:
    instances = _instances([("a", "q1", ["d1"], ["d2", "d3"])])
    with pytest.raises(ValueError, match="texts_hash"):
        _export(tmp_path, instances.with_columns(pl.col("negatives").list.reverse()))


@pytest.mark.parametrize(
    ("queries", "passages", "says"),
    [
        (_queries()[:1], _passages(), "instance b/q1: no text for its query"),
        (_queries(), _passages()[1:], "instance a/q1: no text for passage d1"),
    ],
)
def test_a_missing_text_is_refused(tmp_path: Path, queries: pl.DataFrame, passages: pl.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        export(ExportConfig(), instances=_instances(ROWS), queries=queries, passages=passages, out=tmp_path)


def test_an_instance_without_positive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="instance a/q1 has no positive"):
        _export(tmp_path, _instances([("a", "q1", [], ["d1"])]))


def test_no_instances_give_empty_files(tmp_path: Path) -> None:
    summary = _export(tmp_path, _instances([]), formats=["tevatron", "sentence-transformers"])
    assert (tmp_path / "tevatron" / "train.jsonl").read_bytes() == b""
    assert pl.read_parquet(tmp_path / "sentence-transformers" / "train.parquet").height == 0
    assert summary["instances"] == 0


@pytest.mark.parametrize("config", [{"formats": []}, {"formats": ["csv"]}, {"num_negatives": -1}, {"short": "fill"}])
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExportConfig.model_validate(config)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(ExportConfig) == {
        "formats": (("tevatron",), "len>=1"),
        "num_negatives": (7, ">=0"),
        "short": "pad",
        "file_type": "parquet",
        "shape": "n-tuple",
        "soft_labels": "none",
        "provenance": False,
        "licences": {},
        "facts": None,
        "rendered": (),
    }


def test_numbers_of_rows_short_rows_and_dropped_rows_add_up(tmp_path: Path) -> None:
    def counts(name: str, rows: Any = ROWS, **config: object) -> dict[str, int]:
        config = {"formats": ["sentence-transformers"], "file_type": "jsonl", **config}
        found: dict[str, int] = _export(tmp_path / name, _instances(rows), **config)["formats"]["sentence-transformers"]
        return found

    full = [("a", "q1", ["d2"], ["d3"])]
    assert counts("1", full, num_negatives=1) == {"rows": 1, "short": 0, "dropped": 0}
    assert counts("2", num_negatives=1) == {"rows": 2, "short": 1, "dropped": 0, "pairs": 1}
    assert counts("3", num_negatives=2) == {"rows": 2, "short": 3, "dropped": 0, "pairs": 1}
    assert counts("4", num_negatives=2, short="keep") == {"rows": 3, "short": 3, "dropped": 0}
    assert counts("5", num_negatives=2, short="drop") == {"rows": 0, "short": 3, "dropped": 3}
    assert counts("6", num_negatives=0) == {"rows": 3, "short": 0, "dropped": 0}


def test_nothing_to_export_is_counted_as_nothing(tmp_path: Path) -> None:
    summary = _export(tmp_path, schemas.INSTANCES.empty(), formats=list(FORMATS))
    assert summary["formats"] == {
        "beir": {"documents": 0, "queries": 0, "qrels": 0},
        "datasets": {"rows": 0, "without_negatives": 0, "files": 1},
        "flagembedding": {"rows": 0, "without_negatives": 0},
        "sentence-transformers": {"rows": 0, "short": 0, "dropped": 0},
        "tevatron": {"rows": 0, "without_negatives": 0},
        "trec": {"qrels": 0},
    }
    assert (summary["instances"], summary["without_negatives"]) == (0, 0)


def test_letters_of_the_world_are_written_as_they_are(tmp_path: Path) -> None:
    _export(tmp_path, formats=["tevatron"])
    assert "third\u2028é" in (tmp_path / "tevatron" / "train.jsonl").read_text(encoding="utf-8")
    assert _export(tmp_path / "2", formats=["trec"])["formats"]["trec"] == {"qrels": 4}


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(export_module) == set()


def test_pairs_of_rows_that_must_not_share_a_batch_are_a_file_of_their_own(tmp_path: Path) -> None:
    found = [("b", "q1", "a", "q1", "negative_is_positive", 2), ("a", "q1", "b", "q1", "same_positive", 1)]
    pairs = pl.DataFrame(found, schema=DO_NOT_BATCH.columns, orient="row")
    export(
        ExportConfig(),
        instances=_instances(ROWS),
        queries=_queries(),
        passages=_passages(),
        do_not_batch=pairs,
        out=tmp_path / "with",
    )
    _export(tmp_path / "without")
    assert pl.read_parquet(tmp_path / "with" / "do_not_batch.parquet").rows() == pairs.sort(pl.all()).rows()
    assert json.loads((tmp_path / "with" / "export.json").read_text())["do_not_batch"] == 2
    assert not (tmp_path / "without" / "do_not_batch.parquet").exists()
