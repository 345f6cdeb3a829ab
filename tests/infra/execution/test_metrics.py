"""What parts did, counted for Prometheus."""

import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from infra.execution import metrics
from tests.conftest import RAY_EXTRAS, require
from tests.infra.toy import ToyConfig
from tests.infra.toy_runs import execute


@pytest.mark.slow
def test_every_figure_of_a_part_is_of_a_kind_that_ray_counts(services: None) -> None:
    facts = {"calls": 3, "recalled": 4, "prompt_tokens": 50, "cached_tokens": 6, "output_tokens": 7, "unparsed": 1}
    stats = {"seconds": 1.5, "rows_in": 3, "rows_out": 0, "facts": facts}
    metrics._count(metrics._instruments(), "judge-llm", "computed", stats)


@pytest.mark.slow
def test_what_parts_did_is_exported_for_prometheus(services: None, tmp_path: Path) -> None:
    require(RAY_EXTRAS)
    execute(
        str(tmp_path / "store"), tmp_path, ToyConfig(log=str(tmp_path / "log"), trouble=f"kill:{tmp_path / 'once'}")
    )
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = re.compile(r'^ray_reneg_parts_total{.*ended="(killed|computed)".*stage="double".*} (\d+)', re.MULTILINE)
    found: dict[str, str] = {}
    for _ in range(60):  # Ray passes numbers on every ten seconds
        page = urllib.request.urlopen(address, timeout=5).read().decode()
        found = dict(wanted.findall(page))
        if int(found.get("computed", 0)) >= 4 and "add_up" in page:
            break
        time.sleep(0.5)
    assert int(found["killed"]) >= 1
    assert int(found["computed"]) >= 4
    assert "ray_reneg_part_seconds_bucket{" in page
    assert re.search(r'^ray_reneg_rows_total{.*direction="out".*stage="add_up".*} ', page, re.MULTILINE)
