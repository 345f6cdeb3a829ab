"""The sample for people: every stratum, known probabilities, and a sheet that shows no verdict."""

import csv
import itertools
from pathlib import Path

import polars as pl
import pytest

from tasks.quality import sample as module
from tasks.quality.sample import SampleConfig, shortlist
from tasks.schemas import SOURCE_JUDGE
from tests.tasks.quality.pool import build, draw, draw_from
from tests.tasks.settings import settings_of


def read_sheet(out: Path) -> list[dict[str, str]]:
    with (out / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_every_stratum_is_sampled_the_unflagged_too_and_probabilities_are_known(tmp_path: Path) -> None:
    samples = draw(build(), tmp_path, size=17)
    table = samples.group_by("stratum", "inclusion_probability").len().sort("stratum")
    assert table.rows() == [
        ("d/not_relevant/asked", 0.5, 5),
        ("d/not_relevant/not_asked", pytest.approx(5 / 30), 5),
        ("d/relevant/asked", 1.0, 2),
        ("d/unsure/asked", 0.5, 5),
    ]


def test_the_inverse_probabilities_add_up_to_the_number_of_candidates(tmp_path: Path) -> None:
    samples = draw(build(), tmp_path, size=17)
    assert (1 / samples["inclusion_probability"]).sum() == pytest.approx(52)


def test_people_are_not_asked_again_about_what_they_called_irrelevant_in_the_source(tmp_path: Path) -> None:
    frames = build()
    known = pl.when(pl.col("doc_id").is_in(["n3", "n40"])).then(pl.lit(SOURCE_JUDGE)).otherwise("judge")
    frames["decisions"] = frames["decisions"].with_columns(judge=known)
    samples = draw(frames, tmp_path, size=1000)
    assert samples.height == 50
    assert not set(samples["doc_id"]) & {"n3", "n40"}


def test_a_sample_larger_than_the_pool_is_the_pool(tmp_path: Path) -> None:
    samples = draw(build(), tmp_path, size=1000)
    assert samples.height == 52
    assert samples["inclusion_probability"].unique().to_list() == [1.0]


def test_the_same_seed_draws_the_same_bytes_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    frames = build()
    shuffled = {name: frame.reverse() for name, frame in frames.items()}
    one, two = draw(frames, tmp_path / "1", size=9), draw(shuffled, tmp_path / "2", size=9)
    assert one.equals(two)
    assert (tmp_path / "1" / "sheet.csv").read_bytes() == (tmp_path / "2" / "sheet.csv").read_bytes()


def test_the_sample_is_the_same_from_one_part_and_from_several(tmp_path: Path) -> None:
    """The same pairs, probabilities and bytes, though a stratum lies in several parts and a part has no drawn pair."""
    frames = build({("relevant", True): 2, ("not_relevant", False): 60, ("unsure", True): 10})
    whole = draw(frames, tmp_path / "1", size=9)
    cut = [
        {**frames, **{name: frames[name].filter(pl.col("doc_id").is_in(ids)) for name in ("candidates", "decisions")}}
        for ids in ([f"n{n}" for n in range(start, 72, 8)] for start in range(8))
    ]
    assert draw_from(cut, tmp_path / "8", size=9).equals(whole)
    assert (tmp_path / "1" / "sheet.csv").read_bytes() == (tmp_path / "8" / "sheet.csv").read_bytes()


def test_growth_that_adds_no_drawn_pair_leaves_the_drawn_pairs_of_all_parts_as_they_were() -> None:
    """Else each part with a drawn pair has another key, and reads its texts again."""
    frames = build({("relevant", True): 20, ("not_relevant", False): 60})
    config = SampleConfig(size=9)
    short = shortlist(config, candidates=frames["candidates"], decisions=frames["decisions"])
    numbered = short["shortlist"].select("stratum", "hash", part=pl.lit(0, pl.Int32))
    one, two = (
        module.draw(config, shortlist=numbered, strata=short["strata"].with_columns(pl.col("pairs") + more))
        for more in (0, 5)
    )
    (drawn,), (again,) = (list(each["drawn"]) for each in (one, two))
    assert drawn[1].equals(again[1])
    assert not one["chances"].equals(two["chances"])


def test_another_seed_draws_other_pairs(tmp_path: Path) -> None:
    frames = build()
    one, two = (draw(frames, tmp_path / str(seed), size=9, seed=seed) for seed in (1, 2))
    assert one["doc_id"].to_list() != two["doc_id"].to_list()


def test_the_sheet_is_blind_and_asks_for_a_label(tmp_path: Path) -> None:
    draw(build(), tmp_path, size=4)
    rows = read_sheet(tmp_path)
    assert list(rows[0]) == ["dataset", "query_id", "doc_id", "query", "positives", "passage", "label", "comment"]
    assert {(row["query"], row["positives"], row["label"], row["comment"]) for row in rows} == {
        ("what", "positive", "", "")
    }
    text = (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig")
    assert "relevant" not in text
    assert "asked" not in text


def test_the_order_of_the_sheet_says_nothing_of_the_strata(tmp_path: Path) -> None:
    samples = draw(build({("relevant", True): 20, ("not_relevant", False): 2000}), tmp_path, size=40)
    stratum = dict(samples.select("doc_id", "stratum").iter_rows())
    order = [stratum[row["doc_id"]] for row in read_sheet(tmp_path)]
    changes = sum(one != two for one, two in itertools.pairwise(order))
    assert changes > 10
    assert 5 <= order[:20].count("d/relevant/asked") <= 15


@pytest.mark.parametrize("text", ["=1+1 {}", "+{}", "-{}", "@x{}", " =x{}", "\t@x{}", "'=x{}", "\uff1dx{}"])
def test_a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe(text: str, tmp_path: Path) -> None:
    draw(build({("unsure", True): 1}, text=text, query=text.format("q"), doc=text), tmp_path)
    row = read_sheet(tmp_path)[0]
    assert row["passage"] == "'" + text.format(0)
    assert row["doc_id"] == "'" + text.format(0)
    assert row["query"] == "'" + text.format("q")


def test_ordinary_texts_are_shown_as_they_are_with_quotes_commas_lines_and_letters_of_the_world(tmp_path: Path) -> None:
    text = 'a "b", c;\nd = e - ünï 東京 {}'
    draw(build({("unsure", True): 1}, text=text), tmp_path)
    assert read_sheet(tmp_path)[0]["passage"] == text.format(0)
    assert (tmp_path / "sheet.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_passage_too_long_for_a_cell_is_cut_and_marked(tmp_path: Path) -> None:
    draw(build({("unsure", True): 1}, text="{}" + "x" * 100_000), tmp_path)
    passage = read_sheet(tmp_path)[0]["passage"]
    assert len(passage) < 32_767
    assert passage.endswith("x […]")


def test_guidelines_lie_beside_the_sheet(tmp_path: Path) -> None:
    draw(build(), tmp_path, size=1)
    assert "not_relevant" in (tmp_path / "guidelines.md").read_text(encoding="utf-8")


def test_nothing_to_sample_is_an_empty_sheet_with_its_header(tmp_path: Path) -> None:
    assert draw(build({}), tmp_path).is_empty()
    assert read_sheet(tmp_path) == []
    assert (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig").startswith('"dataset","query_id","doc_id"')


def test_the_annotator_is_noted_where_known(tmp_path: Path) -> None:
    assert draw(build(), tmp_path, size=1, annotator="ada")["annotator"].to_list() == ["ada"]


def test_a_candidate_without_decision_is_refused(tmp_path: Path) -> None:
    frames = build()
    with pytest.raises(ValueError, match="a decision for each of 52 candidates expected, 1 have none"):
        draw(frames | {"decisions": frames["decisions"].head(51)}, tmp_path)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(SampleConfig) == {
        "size": (100, ">=0"),
        "seed": 0,
        "annotator": "",
        "wait_for": (0.0, ">=0", "<=1", "operational"),
        "passage_chars": (4000, ">=1"),
        "positives_chars": (8000, ">=1"),
    }
