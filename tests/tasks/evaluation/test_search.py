"""A collection is searched exactly, and its scores are those of mteb on the same model and folder."""

from pathlib import Path
from typing import Any

import ir_measures
import polars as pl
import pytest

from tasks.evaluation.collections import ReadConfig, read_collection
from tasks.evaluation.encoding import load_model
from tasks.evaluation.left_out import LEFT_OUT
from tasks.evaluation.search import ScoreConfig, SearchConfig, score_collection, search_collection
from tasks.summaries import FOUND
from tasks.texts import show_passage
from tests.tasks.evaluation.collection import write_collection, write_model

MEASURES = ("nDCG@10", "R@100", "RR@10", "AP@100", "P@10", "Success@1")
# Of mteb 2.26.24 on what tests/tasks/evaluation/collection.py writes: ndcg_at_10, recall_at_100, mrr_at_10, map_at_100,
# precision_at_10, hit_rate_at_1; by similarity and `ignore_identical_ids`.
MTEB: dict[tuple[str, bool], tuple[float, ...]] = {
    ("cosine", True): (0.15266, 0.79792, 0.2417, 0.13317, 0.0675, 0.125),
    ("cosine", False): (0.15718, 0.8375, 0.25163, 0.14627, 0.08, 0.1),
    ("dot", True): (0.11281, 0.76458, 0.17836, 0.10725, 0.055, 0.1),
    ("dot", False): (0.12084, 0.80417, 0.19541, 0.1255, 0.0625, 0.1),
}


def _embeddings(texts: list[tuple[str, str]], vectors: Any) -> pl.DataFrame:
    made = pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    return pl.DataFrame({"text_hash": [hash_ for hash_, _ in texts], "vector": made}).unique("text_hash")


def _evaluated(folder: Path, model: Path, *, same_id: bool, passage_rows: int = 100) -> dict[str, pl.DataFrame]:
    how = ReadConfig(name="mine", ignore_same_id=same_id, query_rows=25, passage_rows=passage_rows)
    read = {name: list(frames) for name, frames in read_collection(how, source=folder).items() if name != "facts"}
    encoder = load_model(model, device="cpu", dtype="float32", max_seq_length=64, batch_size=32)
    vectors = []
    for part in read["passages"]:
        rows = part.select("text_hash", "title", "text").iter_rows()
        shown = [(hash_, show_passage(title, text)) for hash_, title, text in rows]
        vectors.append(_embeddings(shown, encoder.encode([text for _, text in shown], "")))
    queries = pl.concat(part.with_columns(part=pl.lit(n, pl.Int32)) for n, part in enumerate(read["queries"]))
    asked = queries.select("text_hash", "text").rows()
    found = search_collection(
        SearchConfig(depth=100),
        queries=queries,
        query_embeddings=_embeddings(asked, encoder.encode([text for _, text in asked], "")),
        passages=read["passages"],
        passage_embeddings=vectors,
    )["found"]
    config = ScoreConfig(model_name="m", measures=MEASURES)
    scored = [
        score_collection(
            config, found=frame, queries=read["queries"][part], qrels=read["qrels"][part], left_out=read["left_out"][0]
        )
        for part, frame in found
    ]
    labels = pl.concat(read["qrels"])
    return {**{name: pl.concat(one[name] for one in scored) for name in ("scores", "run")}, "qrels": labels}


def _means(scores: pl.DataFrame) -> dict[str, float]:
    return dict(scores.group_by("measure").agg(pl.col("value").mean()).iter_rows())


@pytest.mark.parametrize("same_id", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_scores_equal_those_of_mteb_and_of_ir_measures_to_four_decimals(
    tmp_path: Path, similarity: Any, same_id: bool
) -> None:
    folder, model = write_collection(tmp_path / "set"), write_model(tmp_path / "model", similarity)
    made = _evaluated(folder, model, same_id=same_id)
    assert list(_means(made["scores"])[name] for name in MEASURES) == pytest.approx(MTEB[similarity, same_id], abs=5e-5)
    qrels = [ir_measures.Qrel(*row) for row in made["qrels"].select("query_id", "doc_id", "relevance").iter_rows()]
    run = [ir_measures.ScoredDoc(*row) for row in made["run"].select("query_id", "doc_id", "score").iter_rows()]
    found = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in MEASURES], qrels, run)
    assert _means(made["scores"]) == pytest.approx({str(name): value for name, value in found.items()})
    assert made["scores"]["query_id"].n_unique() == 40


def test_the_result_does_not_depend_on_how_the_corpus_is_cut(tmp_path: Path) -> None:
    folder, model = write_collection(tmp_path / "set"), write_model(tmp_path / "model", "dot")
    whole, cut = (_evaluated(folder, model, same_id=True, passage_rows=rows) for rows in (1000, 37))
    assert whole["scores"].equals(cut["scores"])
    assert whole["run"].drop("score").equals(cut["run"].drop("score"))
    assert whole["run"]["score"].to_numpy() == pytest.approx(cut["run"]["score"].to_numpy(), rel=1e-5)
    assert whole["run"].group_by("query_id").len()["len"].to_list() == [100] * 40


def test_a_text_without_a_vector_is_an_error(tmp_path: Path) -> None:
    read = read_collection(ReadConfig(name="mine"), source=write_collection(tmp_path))
    queries = read["queries"][0].with_columns(part=pl.lit(0, pl.Int32))
    none = pl.DataFrame(schema={"text_hash": pl.String, "vector": pl.Array(pl.Float32, 4)})
    with pytest.raises(ValueError, match="distinct queries have no embedding"):
        search_collection(SearchConfig(), queries=queries, query_embeddings=none, passages=[], passage_embeddings=[])


def test_a_measure_that_looks_deeper_than_the_ranking_is_refused(tmp_path: Path) -> None:
    read = read_collection(ReadConfig(name="mine"), source=write_collection(tmp_path))
    queries, qrels, nothing = next(iter(read["queries"])), next(iter(read["qrels"])), FOUND.empty()
    left_out = pl.DataFrame(schema=LEFT_OUT)
    with pytest.raises(ValueError, match=r"R@100 looks at 100 passages of a ranking, and depth is 50"):
        score_collection(
            ScoreConfig(model_name="m", measures=("R@100",), depth=50),
            found=nothing, queries=queries, qrels=qrels, left_out=left_out,
        )  # fmt: skip
