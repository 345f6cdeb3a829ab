"""The record of a run with kills, written as JSON: every kill with its recovery, every curation, every fault found."""

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# The process of a flow run; Prefect's worker; `reneg serve`; a Ray worker with a part that needs no engine, with an
# engine, or with a small actor (meter, log lines, rate limit); a node that is not the head; the head; Prefect's server;
# the S3 server.
KINDS = ("flow", "worker", "supervisor", "plain part", "engine", "meter", "raylet", "gcs", "prefect", "weed")


@dataclass
class Kill:
    """One kill: when, which kind, how many judges were alive, and how long until the system continued."""

    kind: str
    at: float
    curation: int
    flow_run: str
    judges: int
    recovery: float | None = None
    twice: int = 0  # calls judged again before the next kill with a living judge


@dataclass
class Tally:
    """Everything that is reported; the file is written after each change."""

    path: Path
    wanted: int
    head: Mapping[str, Any]
    started: float = field(default_factory=time.monotonic)
    kills: list[Kill] = field(default_factory=list)
    curations: list[dict[str, Any]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    patience: float = math.inf  # seconds without progress after which it is a finding

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:7.1f} s  {len(self.kills):3} kills  {text}", flush=True)

    def find(self, text: str) -> None:
        self.findings.append(text)
        self.say(f"FINDING: {text}")

    def lacking(self) -> dict[str, int]:
        """Count the kills that each kind still needs for its share; once no kind needs any, all are equal."""
        done = Counter(kill.kind for kill in self.kills)
        lacking = {kind: max(0, self.wanted // len(KINDS) - done[kind]) for kind in KINDS}
        return lacking if any(lacking.values()) else dict.fromkeys(KINDS, 1)

    def write(self) -> None:
        finished = [one for one in self.curations if "identical" in one]
        twice = sum(one["judged_twice"] for one in finished)
        data = {
            **self.head,
            "kills": len(self.kills),
            "curations": len(finished),
            "ended": sum(one["ended"] for one in finished),
            "identical": {"count": sum(one["identical"] for one in finished), "of": len(finished)},
            "judged_twice": {
                "total": twice,
                "bound": sum(one["bound"] for one in finished),
                "within_bound": all(one["judged_twice"] <= one["bound"] for one in finished),
                "calls": sum(one["calls"] for one in finished),
                "by_kind": {kind: sum(k.twice for k in self.kills if k.kind == kind) for kind in KINDS},
            },
            "by_kind": {kind: self._of(kind) for kind in KINDS},
            "minutes": round((time.monotonic() - self.started) / 60, 1),
            "findings": self.findings,
            "details": {"curations": self.curations, "kills": [asdict(kill) for kill in self.kills]},
        }
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(data, indent=1) + "\n")
        temporary.replace(self.path)

    def _of(self, kind: str) -> dict[str, Any]:
        kills = [kill for kill in self.kills if kill.kind == kind]
        seconds = [kill.recovery for kill in kills if kill.recovery is not None]
        return {
            "kills": len(kills),
            "curations": len({kill.curation for kill in kills}),
            "with_a_judge_at_work": sum(kill.judges > 0 for kill in kills),
            "median_seconds_to_recovery": round(statistics.median(seconds), 1) if seconds else None,
        }
