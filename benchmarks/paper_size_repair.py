"""Let one part of a judge fail in a finished curation, and measure the command that computes it again.

Taken away are the manifest of the part, those of the parts that read its answers (of the same queries), and the object
that holds the judge's answers for these queries. A run then fails at this part, and the stages that gather all parts
wait for it. Then the object is put back, and `reneg rerun` is asked for the part and for what is downstream of it.
The gathers find that nothing has changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paper_size_parts import Part, below, parts_of
from benchmarks.paper_size_watch import reneg, try_reneg

_ANSWERS = "rows"  # the input of a judge from a file


def repair(folder: Path, config: Path, name: str, stage: str) -> dict[str, Any]:
    """Let the part of a stage with the most rows fail, compute it again, and return what that took.

    Raises:
        RuntimeError: the run did not fail, or the repair failed.
    """
    parts = parts_of(folder, name)
    part = max((part for part in parts if part.stage == stage), key=lambda part: part.rows)
    lost = [part, *below(part, parts)]
    store = folder / "store"
    for one in lost:
        (store / one.path).unlink()
    answers = store / part.pieces[_ANSWERS][0].object
    aside = answers.with_name(f"{answers.name}.aside")
    answers.rename(aside)
    try:
        failed = try_reneg(folder, "curate", str(config))
    finally:
        aside.rename(answers)
    target = ("--stage", stage, "--part", str(part.number), "--downstream")
    if failed.code == 0 or " ".join(target) not in failed.output:
        raise RuntimeError(f"a failure of {stage} {part.number} expected:\n{failed.output[-3000:]}")
    again = reneg(folder, "rerun", curation_of(failed.output), *target)
    return {
        "stage": stage,
        "part": part.number,
        "parts_again": len(lost),
        "seconds_failed": failed.seconds,
        "retry_seconds": again.seconds,
        "part_seconds": round(_seconds(parts_of(folder, name), part), 3),
    }


def curation_of(output: str) -> str:
    """Return the id of the curation that a command has printed.

    >>> curation_of("curation paper-size-000001 in /tmp/store")
    'paper-size-000001'
    """
    return output.split("curation ", 1)[1].split(maxsplit=1)[0]


def _seconds(parts: Sequence[Part], part: Part) -> float:
    return next(one.seconds for one in parts if (one.stage, one.number) == (part.stage, part.number))
