"""Computing one part again: alone, or with what lies downstream of it."""

from flows.config import ConfigError
from flows.curation import Curation, Curator
from flows.job import Job


def rerun_job(curator: Curator, curation: Curation, target: tuple[str, int], *, downstream: bool) -> Job:
    """Make the job that computes one part again.

    Raises:
        ConfigError: there is no such stage or part.
    """
    outcome, runs = curator.look(curation)
    known = {run.name: run.parts for run in runs}
    if target[0] in known and target[1] >= known[target[0]]:
        raise ConfigError(f"{target[0]} has {known[target[0]]} parts, numbered from 0; part {target[1]} is not there")
    if target[0] not in known and outcome is not None:
        raise ConfigError(
            f"{curation.id} is finished and has no stage {target[0]!r}; known: {', '.join(known)}. A part of retrain, "
            "prune or validate is computed again by that command, or by Retry of its flow run, which reuse the others"
        )
    if target[0] not in known and target not in curator.failures(curation.id):
        raise ConfigError(f"no stage {target[0]!r} so far in {curation.id}; known: {', '.join(known)}")
    return Job("rerun-part", force=frozenset({target}), only=None if downstream else target)
