"""A docstring is read as a summary line and the prose after it."""

import pytest

from tasks.data import docstring_text as docstring_text_module
from tasks.data.docstring_text import Documentation, cut, plain, read_docstring, words
from tests.tasks.records import mutable_records


def test_a_signature_over_several_lines_is_cut_off() -> None:
    doc = "add(input, other, *,\n    alpha=1) -> Tensor\n\nAdds other to input.\n\nSupports broadcasting."
    assert read_docstring(doc) == Documentation("Adds other to input.", "Supports broadcasting.")


def test_a_sentence_that_begins_with_a_call_is_no_signature() -> None:
    read = read_docstring("load(x) reads a file.\n\nThe rest.")
    assert read == Documentation("load(x) reads a file.", "The rest.")


def test_only_the_first_sentence_is_the_summary() -> None:
    read = read_docstring("Sums all values, e.g. of\na row. Nulls count as zero.\n\nMore.")
    assert read == Documentation("Sums all values, e.g. of a row.", "Nulls count as zero. More.")


def test_code_and_tables_and_sections_of_references_are_left_out() -> None:
    doc = """
    Get the first `n` rows.

    Parameters
    ----------
    n
        Number of rows.

    See Also
    --------
    tail : Get the last rows.

    Examples
    --------
    >>> df.head(1)
    shape: (1, 1)
    │ 1 │

    Prose between the examples.

    Notes
    -----
    Cheap. Call it like this::

        df.head(2)

    .. math:: a + b

    .. note::
        Never copies.
    """
    read = read_docstring(doc)
    assert read == Documentation(
        "Get the first n rows.", "Parameters: n: Number of rows. Notes: Cheap. Call it like this: Note: Never copies."
    )


def test_arguments_in_the_google_style_stay_apart() -> None:
    doc = "Find it.\n\nArgs:\n    a (int): first\n        of all\n    b: second\n\nExample::\n    >>> f()\n"
    read = read_docstring(doc)
    assert read == Documentation("Find it.", "Args: a (int): first of all. b: second.")


@pytest.mark.parametrize("doc", ["", "f(x)", "- a list\n- of items", ">>> 1 + 1", "Title\n=====\n\nText"])
def test_a_docstring_that_begins_without_prose_is_not_read(doc: str) -> None:
    assert read_docstring(doc) is None


def test_markup_is_removed() -> None:
    assert plain("See :class:`~torch.nn.Linear`, ``x``, **not** `this page <there>`_ [1]_.") == (
        "See torch.nn.Linear, x, not this page."
    )


def test_texts_that_differ_in_case_and_punctuation_have_the_same_words() -> None:
    assert words("Get the first `n` rows.") == words("get the  first n rows")


def test_a_cut_ends_a_sentence_where_one_fits_and_a_word_elsewhere() -> None:
    assert cut("One two. Three four five.", 12) == "One two."
    assert cut("One two three four", 10) == "One two"
    assert cut("short", 10) == "short"


@pytest.mark.parametrize(
    ("text", "most", "shortened"),
    [
        ("aaa bbb ccc", 7, "aaa bbb"),
        ("aaa bbb ccc", 11, "aaa bbb ccc"),
        ("aaa bbb ccc", 10, "aaa bbb"),
        ("Abc. De f ghi", 8, "Abc."),
        ("Ab. De f ghi", 9, "Ab. De f"),
        ("One two, (three four", 10, "One two"),
        ("abcdefgh", 3, "a"),
    ],
)
def test_a_cut_keeps_a_sentence_of_at_least_half_the_length_and_else_whole_words(
    text: str, most: int, shortened: str
) -> None:
    assert cut(text, most) == shortened


def prose(*lines: str) -> str:
    """What is left of the lines below a summary."""
    found = read_docstring("\n".join(["Summary line.", "", *lines]))
    assert found is not None
    assert found.summary == "Summary line."
    return found.body


def test_a_signature_is_dropped_where_a_result_or_nothing_follows_it() -> None:
    assert read_docstring("f(a, (b, [c])) -> int\n\nDo it.") == Documentation("Do it.", "")
    assert read_docstring("f(a,\n  b)\nDo it.") == Documentation("Do it.", "")
    assert read_docstring("f(a)\ng(a)\n\nDo it.") == Documentation("Do it.", "")
    assert read_docstring("f(x) = 2 * x for all.") == Documentation("f(x) = 2 * x for all.", "")
    assert read_docstring("f(a\n\nDo it.") == Documentation("f(a", "Do it.")
    assert read_docstring("f(a)") is None


def test_a_doctest_ends_with_a_blank_line_and_an_indented_block_with_its_indentation() -> None:
    assert prose("Before.", "", ">>> f(1)", "2", "", "After.") == "Before. After."
    assert prose("Use it so::", "", "    f(1)", "", "After.") == "Use it so: After."
    assert prose("Example:", "    f(1)", "", "    g(2)", "After.") == "After."


def test_sections_have_their_name_before_the_first_unit_and_references_are_left_out() -> None:
    lines = [
        "Notes",
        "-----",
        "First.",
        "",
        "Second.",
        "",
        "See Also",
        "--------",
        "other",
        "",
        "Raises",
        "------",
        "Error.",
    ]
    assert prose(*lines) == "Notes: First. Second. Raises: Error."
    assert prose("Warnings", "--------", "", "Notes", "-----", "Only this.") == "Notes: Only this."


def test_directives_are_kept_as_labels_or_left_out_with_their_blocks() -> None:
    assert prose(".. note:: Mind this.", "", "After.") == "Note: Mind this. After."
    assert prose(".. math::", "", "    x^2", "", "After.") == "After."
    assert prose(".. deprecated:: 1.2", "    Use g.", "", "After.") == "Deprecated since 1.2: Use g. After."
    assert prose(".. a comment", "After.") == "After."


def test_lists_and_parameters_are_units_and_a_deeper_block_explains_its_line() -> None:
    assert prose("- one", "- two", "  more") == "- one. - two more."
    assert prose("n : int", "    How many.", "m : int", "    Which.") == "n (int): How many. m (int): Which."
    assert prose("Args:", "    a: First.", "    b: Second.") == "Args: a: First. b: Second."
    assert prose("A line that goes", "on here.", "", "Another one") == "A line that goes on here. Another one."


@pytest.mark.parametrize("line", ["┌─────┐", "shape: (3, 2)", "=====  =====", "| a | b | c |"])
def test_tables_are_left_out(line: str) -> None:
    assert prose("Before.", line, "After.").replace("| a | b | c |", "") in ("Before. After.", "Before.  After.")


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(docstring_text_module) == set()
