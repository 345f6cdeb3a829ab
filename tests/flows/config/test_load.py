"""How a configuration file is read, and what the message says when it cannot be."""

from pathlib import Path

import pytest
import yaml

from flows.config.load import load_config
from flows.config.section import ConfigError
from tests.flows.settings import MINIMAL, refuse


def test_an_unknown_key_is_named_with_the_nearest_known_one() -> None:
    assert refuse({"mime": {}}) == "my.yaml: unknown key 'mime'; did you mean 'mine'?"
    assert refuse({"mine": {"relative_marign": 0.05}}) == (
        "my.yaml: unknown key 'mine.relative_marign'; did you mean 'relative_margin'?"
    )


def test_an_unknown_key_without_a_near_one_lists_what_is_known() -> None:
    assert "known here: harvest, path" in refuse({"source": {"path": "a", "zzzzzz": 1}})


def test_every_problem_is_on_its_own_line() -> None:
    lines = refuse({"name": "Not A Name", "mine": {"range_max": -1}, "encoder": {"dtype": "int8"}}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("my.yaml: ") for line in lines)


def test_a_relative_source_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert load_config(path).source.path == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "a mapping of settings expected, list came"),
        (b"a: [unclosed", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
    ],
    ids=["list", "broken", "binary"],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
