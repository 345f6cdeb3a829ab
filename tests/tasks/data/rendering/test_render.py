"""The lines that query parts write: which formats they can write, and what they say of them."""

import polars as pl
import pytest

from tasks import schemas
from tasks.data.export import FORMATS
from tasks.data.rendering.render import INDEX, TEXTS, render, render_config, rendered_formats
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.training_set import TALLIES
from tests.tasks.data.writing.sets import Row, decided, pairs, tables, teacher

ROWS: list[Row] = [("b", "q1", ["d3"], []), ("a", "q2", ["d1", "d2"], ["d3"]), ("a", "q1", ["d1"], ["d4", "d5"])]
_TABLES = {"index": INDEX, "texts": TEXTS, "tallies": TALLIES}


def test_the_index_says_of_each_line_whose_it_is_and_how_long() -> None:
    made = render(ExportConfig(formats=("tevatron", "flagembedding")), **tables(ROWS))
    assert all(dict(made[name].schema) == _TABLES[name].columns for name in made)
    index = made["index"]
    assert index["bytes"].to_list() == [len(text.encode()) for text in made["texts"]["line"]]
    assert made["texts"]["line"].str.ends_with("}\n").all()
    keys = index.filter(format="tevatron").select("dataset", "query_id", "alone").rows()
    assert keys == [("a", "q1", False), ("a", "q2", False), ("b", "q1", True)]
    assert index.filter(format="flagembedding").height == 3


def test_a_passage_that_several_parts_want_is_in_each_line_once() -> None:
    given = tables(ROWS)
    twice = given | {"passages": pl.concat([given["passages"], given["passages"]])}
    config = ExportConfig()
    assert render(config, **twice)["texts"].equals(render(config, **given)["texts"])


def test_tallies_count_what_the_lines_hold() -> None:
    config = ExportConfig(soft_labels="decision", provenance=True)
    made = render(
        config,
        **tables(ROWS),
        positives=pairs(schemas.POSITIVES, ("a", "q1", "d1")),
        negatives=pairs(schemas.NEGATIVES, ("a", "q1", "d4")),
        decisions=decided(("a", "q2", "d2", "m", "relevant", 0.75)),
        teacher=teacher(("a", "q1", "d1", 1.5)),
        extras=pairs(schemas.EXTRAS, ("a", "q1", "prompt", "Represent: ")),
    )
    counts = {(what, name): count for what, name, count in made["tallies"].iter_rows()}
    assert {
        ("rows", ""): 3,
        ("without_negatives", ""): 1,
        ("dataset", "a"): 2,
        ("dataset", "b"): 1,
    }.items() <= counts.items()
    assert (counts["passages", "positives"], counts["passages", "negatives"]) == (4, 3)
    assert (counts["value", "teacher"], counts["value", "score"], counts["field", "prompt"]) == (1, 7, 1)


def test_a_part_without_instances_writes_tables_without_rows() -> None:
    given = tables(ROWS)
    made = render(ExportConfig(), **given | {"instances": given["instances"].clear()})
    assert all(frame.is_empty() for frame in made.values())


@pytest.mark.parametrize(
    ("config", "given", "names"),
    [
        ({"formats": FORMATS}, (), ("flagembedding", "tevatron")),
        ({"formats": FORMATS}, ("extras",), ("tevatron",)),
        ({"formats": FORMATS, "soft_labels": "decision"}, (), ("tevatron",)),
        ({"formats": ("trec", "beir")}, (), ()),
    ],
)
def test_formats_whose_keys_depend_on_all_rows_are_not_rendered(
    config: dict[str, object], given: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert rendered_formats(ExportConfig.model_validate(config), given) == names


def test_settings_that_decide_no_line_are_not_in_the_keys() -> None:
    config = ExportConfig(formats=("tevatron", "datasets"), licences={"a": "mit"}, num_negatives=3, provenance=True)
    assert render_config(config, ("tevatron",)) == ExportConfig(formats=("tevatron",), provenance=True)
