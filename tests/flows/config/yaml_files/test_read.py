"""What YAML files may hold, and that small files which stand for huge ones are refused quickly."""

from pathlib import Path

import pytest

from flows.config.load import load_config
from flows.config.prices import load_prices
from flows.config.section import ConfigError
from flows.config.yaml_files import read as yaml_file
from flows.config.yaml_files.read import YamlError, read_yaml
from tests.flows.settings import config

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "my.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_aliases_and_merged_keys_are_read(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: [x]}\nother: {<<: *base, a: 2}\nagain: *base\n"
    assert read_yaml(written(tmp_path, text))[0] == {
        "base": {"a": 1, "b": ["x"]},
        "other": {"a": 2, "b": ["x"]},
        "again": {"a": 1, "b": ["x"]},
    }
    assert read_yaml(written(tmp_path, ""))[0] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "at most 100000 values expected, those that aliases repeat included"),
        (MERGED, "at most 100000 values expected"),
        ("a: &a [*a]", "an alias inside of what it stands for"),
        ("[" * 100_000, "nesting that is too deep"),
        ("a: " + "1" * 5_000, "not YAML: Exceeds the limit"),
        ("a: 2026-99-99", "a: without quotes YAML reads 2026-99-99 .line 1. as a date"),
        (b"a: \xff", "not YAML: 'utf-8' codec can't decode byte 0xff"),
        ("a: [", "not YAML: while parsing a flow node"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
    ],
    ids=["laughs", "merged", "endless", "deep", "digits", "date", "bytes", "cut", "object", "two"],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(YamlError, match=message):
        read_yaml(path)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    with pytest.raises(ConfigError, match=message):
        load_prices(config(prices=str(path)))


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "_LARGEST", 10)
    assert read_yaml(written(tmp_path, "a: 4567890"))[0] == {"a": 4567890}
    with pytest.raises(YamlError, match="at most 10 bytes expected"):
        read_yaml(written(tmp_path, "a: 45678901"))
