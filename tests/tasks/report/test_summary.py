"""The figures of a curation, each counted once, and the sentences made of them."""

from tasks import schemas
from tasks.report.summary import conclude, count_figures, summarise
from tests.tasks.report.tables import figure_tables, rows, toy_tables


def test_a_dropped_query_is_counted_and_said() -> None:
    tables = figure_tables(toy_tables())
    tables["edits"] = rows(schemas.EDITS, ("toy", "q1", "d2", "pool", "dropped", "judge", "relevant", 0.9))
    figures = count_figures(**tables)
    assert (figures.found, figures.dropped) == (0, 1)
    assert conclude(figures, [])[-1] == "1 query was dropped whole, having too many false negatives to be clear."


def test_summarise_gives_the_same_numbers_without_a_page() -> None:
    assert summarise(**figure_tables(toy_tables()))["found"] == 1
