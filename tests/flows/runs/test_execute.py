"""Computing one part again: what is refused, and with which advice."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.curation.records import load_curation
from flows.runs.execute import rerun_job
from tests.flows.nightly import Nights, sources


def test_a_part_that_is_not_the_curations_is_refused_with_what_does_it(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    workspace, curation = nights.workspace, load_curation(nights.workspace.store, nights.curate(source).curation)
    job = rerun_job(workspace, curation, ("judge-llm", 0), downstream=False)
    assert (job.only, job.force) == (("judge-llm", 0), frozenset({("judge-llm", 0)}))
    assert rerun_job(workspace, curation, ("judge-llm", 0), downstream=True).only is None
    with pytest.raises(ConfigError, match=r"judge-llm has \d+ parts, numbered from 0; part 99 is not there"):
        rerun_job(workspace, curation, ("judge-llm", 99), downstream=False)
    with pytest.raises(ConfigError, match=r"finished and has no stage 'train-relabel_s43'.*Retry of its flow run"):
        rerun_job(workspace, curation, ("train-relabel_s43", 0), downstream=True)
