"""A preview: its settings, its figures, and that the real curation asks nothing again that the preview asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.curation.lookup import look
from flows.curation.prepare import prepare
from flows.curation.records import open_curation
from flows.planning.preview import Preview, Wanted, look_ahead, preview_config, preview_name
from flows.runs.execute import execute
from tests.flows.animals import ANIMALS, PLACES, tier
from tests.flows.fakes import Both
from tests.flows.nightly import Nights, sources

ROWS = 12


def write_rows(folder: Path, *, negatives: bool = True) -> Path:
    """Rows as the paper publishes them, with negatives of their own or with none."""
    folder.mkdir(parents=True)

    def passage(animal: str, place: str) -> dict[str, str]:
        text = f"The {animal} lives near the {place}, where the {animal} hunts and sleeps."
        return {"docid": f"{animal}-{place}", "title": "", "text": text}

    rows = [
        {
            "query_id": f"q{number}",
            "query": f"where does the {animal} live",
            "positive_passages": [passage(animal, PLACES[0])],
            "negative_passages": [passage(animal, place) for place in PLACES[1:]] if negatives else [],
            "subset": "nature" if number % 2 else "zoo",
        }
        for number, animal in enumerate(ANIMALS[:ROWS])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_preview(nights: Nights, config: CurationConfig, wanted: Wanted) -> Preview:
    workspace = nights.workspace
    curation = open_curation(workspace, preview_config(config, wanted))
    execute(workspace, curation, nights.compute)
    setup = prepare(workspace, curation)
    return look_ahead(workspace, config, setup, look(workspace.store, setup)[1])


def rows_config(nights: Nights, source: Path, **changes: Any) -> CurationConfig:
    parsed: CurationConfig = nights.config(source, ingest={"query_parts": 2, "passage_parts": 2}, **changes)
    return parsed


def test_a_preview_is_named_after_its_curation_however_long_the_name_is() -> None:
    assert preview_name("animals") == "animals-preview"
    long, other = preview_name("a" * 41), preview_name("a" * 40 + "b")
    assert long != other
    for name in (long, other):
        parse_config({"name": name, "source": {"path": "x"}}, "test")


def test_a_preview_schedules_promotes_and_waits_for_nothing(tmp_path: Path) -> None:
    real = Nights(tmp_path).config(
        tmp_path,
        treatments=["default", "relabel"],
        promote={"treatment": "relabel", "against": "default", "require": "none"},
        nightly={"cron": "0 2 * * *"},
        notify={"webhook_env": "HOOK"},
        sample={"size": 12, "wait_for": 0.5},
        train={"steps": 5},
    )
    made = preview_config(real, Wanted(queries=20))
    assert (made.nightly, made.promote, made.notify, made.train, made.sample.wait_for) == (None, None, None, None, 0.0)
    assert made.ingest.dataset == "animals"
    assert made.ingest.subset is not None
    assert (made.ingest.subset.rows, made.ingest.subset.held_out, made.ingest.subset.passages) == (20, 4, 5000)
    assert preview_config(real, Wanted(train=True)).train == real.train
    parse_config(made.model_dump(mode="json"), "test")


def test_the_preview_of_a_subset_is_drawn_from_the_subset(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    subset = {"rows": 8, "seed": 7, "by_dataset": {"zoo": 6}}
    real = nights.config(write_rows(tmp_path / "rows"), ingest={"subset": subset})
    made = preview_config(real, Wanted(queries=4)).ingest.subset
    assert made is not None
    assert (made.rows, made.seed, dict(made.by_dataset)) == (4, 7, {"zoo": 3})
    shown = run_preview(nights, real, Wanted(queries=4))
    assert (shown.drawn, shown.whole) == (4, 8)


def test_the_real_curation_of_rows_with_negatives_recalls_every_answer_of_the_preview(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    config = rows_config(nights, write_rows(tmp_path / "rows"))
    shown = run_preview(nights, config, Wanted(queries=4))
    asked = list(nights.judge.asked)
    assert (shown.drawn, shown.whole, shown.pairs) == (4, ROWS, 4 * 3)
    assert shown.passages == 4 * len(PLACES), "nothing is mined, so no other passage is read"
    assert 0 < len(asked)
    workspace = nights.workspace
    execute(workspace, open_curation(workspace, config), nights.compute)
    later = nights.judge.asked[len(asked) :]
    assert later
    assert not set(later) & set(asked)
    before = len(nights.judge.asked)
    run_preview(nights, config, Wanted(queries=ROWS))
    assert len(nights.judge.asked) == before, "the whole was asked, so a larger preview asks nothing"


def test_a_corpus_is_cut_and_the_preview_says_so(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), sources(tmp_path, 12)[0]
    config = nights.config(source)
    shown = run_preview(nights, config, Wanted(queries=3, passages=10))
    assert (shown.drawn, shown.whole, shown.corpus) == (3, 9, 48)
    assert 10 < shown.passages < 48
    assert any(
        note.startswith(f"mined in {shown.passages} of 48 passages: negatives from a cut") for note in shown.notes
    )
    assert shown.encode_hours is not None


def test_figures_are_scaled_up_to_the_whole_and_stop_at_the_limit_of_a_tier(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_rows(tmp_path / "rows")
    config = rows_config(nights, source, budget={"tokens": 100})
    (planned,) = run_preview(nights, config, Wanted(queries=4)).plan.tiers
    assert (planned.pairs, planned.basis) == (ROWS * 3, "estimated")
    assert planned.calls is not None
    assert planned.calls >= ROWS * 3
    assert planned.known is not None
    assert planned.known >= 4 * 3
    assert planned.prompt_tokens == 10 * (planned.calls - planned.known)
    (line,) = run_preview(nights, config, Wanted(queries=4)).plan.budget
    assert line.startswith("budget.tokens: 100 are used up after about")
    limited = rows_config(
        nights, source, tiers=[{**tier(max_pairs=14), "engine": {"model": str(nights.folder / "model")}}]
    )
    (planned,) = run_preview(nights, limited, Wanted(queries=4)).plan.tiers
    assert planned.pairs == 14
    assert "pairs: at most escalate.max_pairs=14" in planned.notes


def test_the_share_of_false_negatives_has_an_interval_and_is_none_without_pairs(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    config = rows_config(nights, write_rows(tmp_path / "rows"))
    shown = run_preview(nights, config, Wanted(queries=6)).as_json()
    for name in ("false", "queries_with"):
        assert 0 <= shown[name]["low"] <= shown[name]["value"] <= shown[name]["high"] <= 1
    json.dumps(shown)
    skipped = rows_config(nights, tmp_path / "rows", policies={"zoo": {"skip": True}, "nature": {"skip": True}})
    none = run_preview(nights, skipped, Wanted(queries=6))
    assert (none.pairs, none.false.value, none.queries_with.value) == (0, None, None)


@pytest.mark.parametrize("negatives", [True, False])
def test_a_preview_of_everything_is_the_whole(tmp_path: Path, negatives: bool) -> None:
    nights = Nights(tmp_path)
    config = rows_config(nights, write_rows(tmp_path / "rows", negatives=negatives), tiers=[])
    shown = run_preview(nights, config, Wanted(queries=100))
    assert (shown.drawn, shown.whole, shown.passages, shown.plan.tiers) == (ROWS, ROWS, shown.corpus, ())


def test_figures_of_a_preview_of_everything_cost_nothing_more_and_many_false_pairs_are_doubted(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    config = rows_config(
        nights, write_rows(tmp_path / "rows"), decide={"relevant_from": 0.0, "not_relevant_below": 0.0}
    )
    shown = run_preview(nights, config, Wanted(queries=ROWS))
    (planned,) = shown.plan.tiers
    assert planned.calls == planned.known
    assert (planned.prompt_tokens, planned.hours, planned.money) == (0, 0.0, 0.0)
    assert any("more than half of the pairs are judged false" in note for note in shown.notes)


def test_the_reranker_of_the_pool_is_scaled_up_too(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path, judge=Both()), write_rows(tmp_path / "rows", negatives=False)
    nights.asked(source)  # writes the model
    engine = {"kind": "cross_encoder", "model": str(nights.folder / "model")}
    config = rows_config(nights, source, rescore={"engine": engine}, tiers=[])
    (planned,) = run_preview(nights, config, Wanted(queries=4)).plan.tiers
    assert (planned.tier, planned.basis, planned.prompt_tokens) == ("rescore", "estimated", 0)
    assert planned.pairs is not None
    assert planned.pairs > ROWS  # a positive each, and what was found
    assert isinstance(nights.judge, Both)
    assert planned.calls == planned.pairs == len(nights.judge.scored) * ROWS // 4
