"""A docstring is read as a summary line and the prose after it."""

import pytest

from tasks.data.docstring_text import Documentation, cut, plain, read_docstring, words


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
