"""The stages that draw the sample: texts are read only by parts with a drawn pair, and nothing else is gathered."""

from collections.abc import Sequence
from pathlib import Path

from flows import stages
from flows.sampling_stages import DRAW, SAMPLE, SHORTLIST, SHOW_PAIRS
from infra.storage.artifacts import Manifest, Table, read_table
from tests.flows.animals import run_method, write_source


def test_the_draw_reads_hashes_and_only_parts_with_a_drawn_pair_show_texts(tmp_path: Path) -> None:
    assert all(stage in stages.STAGES for stage in (SHORTLIST, DRAW, SHOW_PAIRS, SAMPLE))
    assert {stage.settings for stage in (SHORTLIST, DRAW, SHOW_PAIRS, SAMPLE)} == {"sample"}
    _, run, executor = run_method(
        tmp_path,
        write_source(tmp_path / "source"),
        ingest={"query_parts": 6, "passage_parts": 2, "known_split": "known"},
        sample={"size": 2},
    )
    done = {each.name: each for each in run.runs}
    showing = done["show_pairs"].manifests
    assert done["shortlist"].parts > 2
    assert 1 <= len(showing) <= 2
    (sampled,) = done["sample"].manifests
    pieces = sampled.tables["samples"]
    assert sum(piece.rows for piece in pieces) == 2
    sheet = run.store.get_object(sampled.directories["sheet"]["sheet.csv"]).decode("utf-8-sig")
    assert sheet.count("\n") == 3
    assert sampled.ingredients["candidates"]
    assert [name for name in executor.computed if name.startswith("draw")] == ["draw-00000"]
    assert read_table(run.store, done_table(showing)).height == 2


def done_table(manifests: Sequence[Manifest]) -> Table:
    return Table("shown", tuple(piece for manifest in manifests for piece in manifest.tables["shown"]))
