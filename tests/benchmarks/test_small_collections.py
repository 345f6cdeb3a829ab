"""The walk-through of docs/judging.md: its commands are run as they stand there."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml

from benchmarks import small_collections
from tests.conftest import ROOT
from tests.flows.cli.conftest import Shell, open_shell, shell  # noqa: F401 - fixtures
from tests.flows.nightly import Nights

PAGE = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8").partition("### A walk-through on small files")[2]


def commands() -> list[str]:
    """Return the commands of the walk-through, without their comments."""
    block = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return [line.partition("#")[0].strip() for line in block[1].splitlines() if line.strip()]


def test_the_configurations_on_the_page_are_those_that_are_written(tmp_path: Path) -> None:
    small_collections.write(tmp_path)
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[:2]]
    assert shown == [yaml.safe_load((tmp_path / f"{name}.yaml").read_text()) for name in ("first", "second")]


def test_the_judges_err_as_often_as_they_are_meant_to_and_the_files_are_the_same_everywhere(tmp_path: Path) -> None:
    small_collections.write(tmp_path)
    for name in ("first", "second"):
        said = pl.read_csv(tmp_path / f"{name}.tsv", separator="\t")
        truth = pl.Series([relevant for *_, relevant in small_collections.pairs(name)])
        wrong = [((said["weak"] >= 0.5) != truth).mean(), ((said["strong"] >= 2) != truth).mean()]
        assert said.height == 108
        assert 0.15 < float(wrong[0]) < 0.35  # type: ignore[arg-type]
        assert 0 <= float(wrong[1]) < 0.1  # type: ignore[arg-type]


def test_the_commands_of_the_page_lead_from_judges_files_to_calibrated_verdicts(
    tmp_path: Path,
    open_shell: Callable[[Nights], Shell],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nights = Nights(tmp_path / "installed")
    user, folder = open_shell(replace(nights)), tmp_path / "walk"
    small_collections.write(folder, encoder=nights.asked(folder)["encoder"])
    monkeypatch.chdir(folder)
    home = nights.settings.home
    done = []
    for command in commands():
        words = [word.replace(".reneg/", f"{home}/") for word in shlex.split(command)]
        if words[0] == "reneg":
            done.append(words[1])
            user.run(*words[1:])
        elif "--fill" in words:
            assert small_collections.fill(Path(words[-1])) == 96
    assert done == ["curate", "labels", "calibrate", "curate", "export"]
    assert nights.judge.asked == []
    verdicts = pl.read_parquet(folder / "verdicts" / "verdicts.parquet")
    decided = verdicts.filter(pl.col("tier") == "cascade") if "tier" in verdicts.columns else verdicts
    assert decided.height > 0
    truth = {(query, document): relevant for query, document, _, relevant in small_collections.pairs("second")}
    found = [
        truth[pair] for pair in decided.filter(pl.col("state") == "relevant").select("query_id", "doc_id").iter_rows()
    ]
    assert len(found) > 10
    assert sum(found) / len(found) > 0.8
