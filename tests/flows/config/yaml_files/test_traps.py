"""YAML's traps: the message names the field, shows what YAML made of the value, and says what to write."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.config.load import load_config, parse_config
from flows.config.prices import load_prices
from flows.config.section import ConfigError
from flows.config.yaml_files.read import read_yaml
from flows.config.yaml_files.traps import traps_in, value_at
from tests.flows.settings import MINIMAL, config

BASE = {"name": "name: mine", "source": "source: {path: rows.jsonl}"}


def refused(folder: Path, text: str) -> list[str]:
    """Return what is said of a configuration: one message a line, without the name of the file."""
    path = folder / "my.yaml"
    base = [line for name, line in BASE.items() if not text.startswith(name)]
    path.write_bytes("\n".join([*base, text, ""]).encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value).replace(f"{path}: ", "").splitlines()


OF_ENDPOINT = "tiers: [{engine: {kind: openai, model: m, extra_body: %s}}]"


@pytest.mark.parametrize(
    ("text", "field", "value", "kind"),
    [
        ("nightly: {end_by: 22:30}", "nightly.end_by", "22:30", "the number 1350 (base 60)"),
        ("nightly: {late_hours: 1:30}", "nightly.late_hours", "1:30", "the number 90 (base 60)"),
        ("source: {path: 2024-10-21}", "source.path", "2024-10-21", "a date"),
        ("name: 0123", "name", "0123", "the number 83 (octal)"),
        ("mine: {depth: 010}", "mine.depth", "010", "the number 8 (octal)"),
        (OF_ENDPOINT % "{on: 1}", "tiers.0.engine.extra_body.on", "on", "true or false"),
        (OF_ENDPOINT % "{d: 2024-10-21}", "tiers.0.engine.extra_body.d", "2024-10-21", "a date"),
        ("policies: {123: {}}", "policies.123", "123", "a number"),
        ("decide: {weights: {no: 1.0}}", "decide.weights.no", "no", "true or false"),
    ],
)
def test_what_nobody_means_as_yaml_reads_it_is_refused_wherever_it_stands(
    tmp_path: Path, text: str, field: str, value: str, kind: str
) -> None:
    line = 2 if text.startswith(tuple(BASE)) else 3
    said = f'{field}: without quotes YAML reads {value} (line {line}) as {kind}; quote it: "{value}"'
    assert refused(tmp_path, text) == [said]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "mine: {depth: 60}\nmine: {depth: 50}")
    assert said == ["mine: the key stands twice (lines 3 and 4); keep one of them"]


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("name: no", "name", 'YAML reads no (line 2) as false; quote it: "no"'),
        ("name: 1.10", "name", 'YAML reads 1.10 (line 2) as the number 1.1; quote it: "1.10"'),
        ("name: 0x1F", "name", 'YAML reads 0x1F (line 2) as the number 31; quote it: "0x1F"'),
        ("software: off", "software", 'YAML reads off (line 3) as false; quote it: "off"'),
        ("train_on: [default, no]", "train_on.1", 'YAML reads no (line 3) as false; quote it: "no"'),
        ("tiers: [{engine: {kind: off}}]", "tiers.0.engine", 'YAML reads off (line 3) as false; quote it: "off"'),
        ("tiers: [{engine: {kind: openai, model: 4.10}}]", "tiers.0.engine.model", 'quote it: "4.10"'),
        ("nightly: {cron: 5}", "nightly.cron", "YAML reads 5 (line 3) as the number 5; quote it"),
        ("ingest: {known_split: no}", "ingest.known_split", "YAML reads no (line 3) as false; quote it"),
        ("sample: {annotator: yes}", "sample.annotator", 'YAML reads yes (line 3) as true; quote it: "yes"'),
        ("mine: {depth: 1e3}", "mine.depth", "YAML reads 1e3 as a text; write it with digits only"),
        ("mine:", "mine", "nothing stands there; give it a value, or remove the line"),
        ("name: ~", "name", "nothing stands there"),
    ],
)
def test_a_value_that_yaml_read_as_no_text_is_shown_as_it_stands_in_the_file(
    tmp_path: Path, text: str, field: str, said: str
) -> None:
    (line,) = refused(tmp_path, text)
    assert line.startswith(f"{field}: ")
    assert said in line


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("nightly: {cron: * * * * *}", "put a value that begins with * in quotes"),
        ("nightly:\n  cron: @daily", "put a value that begins with @ in quotes"),
        ("encoder:\n  model: %x", "put a value that begins with % in quotes"),
        ("encoder:\n  model: !x y", "put a value that begins with ! in quotes"),
        ("encoder:\n  model: =", "put the value in quotes"),
        ("encoder:\n  model: a: b", "put a value that holds a colon and a space in quotes"),
        ('encoder:\n  model: "C:\\data"', "use single quotes"),
        ("mine:\n\tdepth: 3", "indent with spaces"),
        ("name: caf\xe9", "save the file in UTF-8"),
    ],
)
def test_a_file_that_is_not_yaml_is_refused_in_one_line_with_the_usual_remedy(
    tmp_path: Path, text: str, remedy: str
) -> None:
    (line,) = refused(tmp_path, text)
    assert line.startswith("not YAML: ")
    assert remedy in line


def test_what_stands_in_quotes_or_is_meant_as_it_is_read_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "name: mine\nsource: {path: 'hf://owner/a:b@v1.10#x'}\nbase: &base {depth: 60}\n"
        "nightly: {end_by: 07:00, cron: '5 2 * * *'}\nbudget: {tokens: 1_000, hours: 1e3}\n"
    )
    with pytest.raises(ConfigError, match="unknown key 'base'"):
        load_config(path)
    path.write_text(path.read_text().replace("base: &base {depth: 60}", "mine: {depth: '060'}"))
    read = load_config(path)
    assert (read.source.path, read.mine.depth) == ("hf://owner/a:b@v1.10#x", 60)
    assert read.nightly is not None
    assert read.nightly.end_by == "07:00"
    assert (read.budget.tokens, read.budget.hours) == (1000, 1000.0)


def test_a_value_that_may_be_a_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "mine": {"depth": "opaque-x7Kq2mZ9"}, "budget": {"hours": "opaque-x7Kq2mZ9"}}, "f")
    assert "opaque" not in str(caught.value)


def test_settings_from_elsewhere_than_a_file_get_the_same_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**MINIMAL, "name": False}, "f")
    assert str(caught.value) == (
        'f: name: Input should be a valid string; without quotes YAML reads false as false; quote it: "false"'
    )


def test_a_price_file_is_told_of_its_traps_too(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("currency: no\nmodels: {m: {input: 1, output: 2}, n: {input: 1}}\n")
    with pytest.raises(ConfigError) as caught:
        load_prices(config(prices=str(path)))
    first, second = str(caught.value).splitlines()
    assert first.endswith(
        'currency: Input should be a valid string; without quotes YAML reads no (line 1) as false; quote it: "no"'
    )
    assert second.endswith("models.n.output: Field required")
    path.write_text("models: {1.10: {input: 1, output: 2}}\n")
    with pytest.raises(ConfigError, match=r'models\.1\.10: without quotes YAML reads 1\.10 .*quote it: "1\.10"'):
        load_prices(config(prices=str(path)))


PLAIN = st.text(st.sampled_from("0123456789:.-_+eExno~ tyf"), min_size=1, max_size=10).map(str.strip).filter(bool)


@given(PLAIN)
@example("22:30")
@example("0o17")
@example("-1:30.5")
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_plain_value_is_a_text_a_trap_or_the_number_that_it_looks_like(text: str) -> None:
    try:
        node = yaml.compose(f"a: {text}\n", yaml.SafeLoader)
    except yaml.YAMLError:
        return
    found: Any = yaml.safe_load(f"a: {text}\n") if not [*traps_in(node)] else None
    if not isinstance(found, dict) or not isinstance(found.get("a"), int | float) or isinstance(found["a"], bool):
        return
    looks_like = int(text.replace("_", ""), 0) if isinstance(found["a"], int) else float(text.replace("_", ""))
    assert found["a"] == looks_like
    assert value_at(node, ["a"]) == (text, 0)


def test_a_file_with_many_aliases_is_looked_through_once(tmp_path: Path) -> None:
    text = "a: &a [2024-10-21]\n" + "".join(f"k{n}: *a\n" for n in range(1_000))
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="as a date") as caught:
        read_yaml(path)
    assert len(str(caught.value).splitlines()) == 1
