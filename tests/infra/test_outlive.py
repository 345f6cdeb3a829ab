"""A process whose output nobody reads any more finishes its work."""

import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import sys
from pathlib import Path
from rich.console import Console
from infra.prefect_api.processes import ignore_broken_pipes
if sys.argv[2] == "outlive":
    ignore_broken_pipes()
console = Console(stderr=True)
sys.stdin.readline()
for _ in range(3):
    console.print("a line of log")
print("and one without rich", flush=True)
Path(sys.argv[1]).write_text("done")
"""


@pytest.mark.parametrize(("how", "finished"), [("outlive", True), ("as it is", False)])
def test_a_process_finishes_its_work_when_the_reader_of_its_output_died(
    tmp_path: Path, how: str, finished: bool
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, str(tmp_path / "done"), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert (process.wait(60) == 0) == finished
    assert (tmp_path / "done").exists() == finished
