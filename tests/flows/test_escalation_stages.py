"""The stages around escalation: what each part reads, and what a change computes again."""

from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.escalation_stages import ALLOT, COMPLETE, COUNT_OPEN, ESCALATE, TALLY
from flows.method.tables import Finished
from flows.stage_names import section_of
from infra.stages.runner import PartSpec, Runner
from infra.storage.artifacts import Table
from infra.storage.tables import read_table
from tests.flows.animals import run_method, tier, write_source
from tests.flows.fakes import InProcess

PARTS = {"query_parts": 5, "passage_parts": 2, "known_split": "known"}


def test_they_are_in_the_table_and_configured_by_the_sections_that_people_write() -> None:
    assert all(stage in stages.STAGES for stage in (COUNT_OPEN, ALLOT, ESCALATE, TALLY, COMPLETE))
    assert [section_of(name) for name in ("count_open", "allot", "escalate", "tally")] == ["escalate"] * 3 + ["complete"]
