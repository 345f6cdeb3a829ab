"""The whole system under SIGKILL, as `benchmarks/chaos.py` plays it, in short: every kind of process at least once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos_tally import KINDS
from tests.conftest import ROOT, require_binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = len(KINDS)  # each kill is of a kind that none was of before


def test_whatever_is_killed_every_curation_ends_with_the_same_bytes_and_little_is_judged_twice(tmp_path: Path) -> None:
    require_binary("weed")
    out = tmp_path / "chaos.json"

    # A process of its own: this one may have spoken to another S3 server, and its client would go on doing so.
    command = ["--kills", str(KILLS), "--seed", "1", "--out", str(out), "--keep", str(tmp_path / "played")]
    done = subprocess.run([sys.executable, "-m", "benchmarks.chaos", *command], cwd=ROOT, timeout=1700, check=False)

    told = json.loads(out.read_text())
    assert (done.returncode, told["findings"]) == (0, [])
    assert told["kills"] == KILLS
    assert {kind: told["by_kind"][kind]["kills"] for kind in KINDS} == dict.fromkeys(KINDS, 1)
    assert told["curations"] == told["ended"] == told["identical"]["count"] == told["identical"]["of"] > 0
    assert told["judged_twice"]["within_bound"]
    assert not list(Path(tmp_path).rglob("*.tmp"))
