"""Names that would leave their folder are known, and those that fall together."""

import pytest

from infra.confined import check_names, is_confined


@pytest.mark.parametrize(
    "name", ["x" * 255, "a/" + "é" * 127, "a", "a/b.json", "100%.txt", "a b", "a..b/.hidden", "é/日本", "C", "ab:c"]
)
def test_a_name_below_its_folder_is_confined(name: str) -> None:
    assert is_confined(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/a", "a%00", "a/", "a//b", "a/./b", "a/..", "a\\b", "a\0b", "a\nb", "a\x1fb", "C:/a", "x/C:a",
     "a/%2e%2E/b", "%252e%252e", "..%2fa", "a%2f%2fb", "a%5cb", "a\x7f", "a\x85b", "a\udcff", "x" * 256, 
     "a/" + "é" * 128],
)  # fmt: skip
def test_a_name_that_might_leave_its_folder_somewhere_is_not_confined(name: str) -> None:
    assert not is_confined(name)


def test_names_of_one_folder_are_checked_together() -> None:
    check_names(["a", "b/a", "b/c/d"])
    check_names([])
    with pytest.raises(ValueError, match=r"file name '\.\./x\.py': a relative path expected"):
        check_names(["a", "../x.py"])
    with pytest.raises(ValueError, match="file name 'a/b/c': lies below 'a', which is a file too"):
        check_names(["a/b/c", "a"])
