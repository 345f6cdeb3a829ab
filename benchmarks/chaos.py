"""Kill random processes of the whole system at random moments, and check what is lost, wrong or paid twice.

    python -m benchmarks.chaos --kills 200 --seed 0

The system is SeaweedFS, three Ray nodes, `reneg serve` with its Prefect server, and an endpoint that judges and counts
its calls. All of it listens on loopback. The first curation runs without kills. Then one curation after another runs,
each in a store of its own, while processes are killed with SIGKILL. The script restarts what a service manager would
restart: the S3 server, Ray's head and nodes, `reneg serve`. The system must restart everything else itself. A flow run
that failed or crashed is retried through the API, as a person would do. Every finished curation is compared with the
first one, byte by byte.
"""

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos_checks import content, damaged, laid_out
from benchmarks.chaos_tally import KINDS, Kill, Tally
from flows.config.curation import CurationConfig
from flows.config.load import load_config
from flows.curation.records import keep_config
from infra.storage.store import Store, StoreError
from tests.flows.animals import tier, write_source
from tests.infra.misbehaving import MisbehavingServer, answer_by_hash
from tests.system.stage_set import ENDED, QUICK, Api, StageSet, wait_until

BATCH = 6  # calls that one engine has under way
_CALL_SECONDS = 0.4
_GAP_SECONDS, _MEAN_SECONDS = 2.0, 6.0  # between kills: the minimum, and the mean on top of it
_MOST = 10  # kills of one curation, so that it ends
_SPARED = 0.5  # share of the curations without a kill before judging starts
_VICTIM_SECONDS = 6.0  # to wait for a process of the drawn kind
_STALL_SECONDS = 360.0  # longer than the automation waits for heartbeats, and than the sweep waits
_ENDING_SECONDS = 60.0
_SETTLE_SECONDS = 60.0
_BACKOFF_SECONDS = 75.0
_ENVIRONMENT = {"OPENAI_API_KEY": "sk-of-the-benchmark", "PYTHONPATH": str(Path(__file__).parents[1])}


class Disturbed:
    """One curation, while processes are killed."""

    def __init__(self, stage: StageSet, judge: MisbehavingServer, tally: Tally, draw: random.Random) -> None:
        self.stage, self.judge, self.tally, self.draw = stage, judge, tally, draw
        self.api = Api(stage.home, stage.api_url, patience=1.0)
        self.number = len(tally.curations) + 1
        self.store_url, self.home = f"s3://reneg/{self.number:03d}", stage.folder / "homes" / f"{self.number:03d}"
        self.kills: list[Kill] = []
        self.record: dict[str, Any] = {"number": self.number, "ended": False, "retries": 0, "states": []}
        self.id = ""
        self._ending: dict[int, float] = {}  # flow processes whose run had ended, and when
        self._progress: tuple[Any, ...] = ()
        self._moved = time.monotonic()

    def play(self, config: CurationConfig, *, kills: int) -> dict[str, Any]:
        """Run the curation with at most `kills` kills, note them in the tally, and return a record of the run."""
        self.judge.paid.clear()
        self.id = start(self.stage, config, self.store_url, self.home)
        began = time.monotonic()
        due = began + self._gap()
        spared = self.draw.random() < _SPARED  # so that enough kills happen while a judge works
        while not self.record["ended"]:
            run = self._run()
            self._look(run)
            if run and run["state_type"] in ENDED:
                self._take(run)
            elif time.monotonic() - self._moved > self.tally.patience:
                self.tally.find(
                    f"curation {self.number}: no progress for {self.tally.patience:.0f} s; {self._situation(run)}"
                )
                break
            elif time.monotonic() > due and len(self.kills) < kills and (self.judge.paid or not spared):
                self._kill_one(run)
                due = time.monotonic() + self._gap()
            time.sleep(0.4)
        calls, distinct = sum(self.judge.paid.values()), len(self.judge.paid)
        self.record |= {
            "seconds": round(time.monotonic() - began, 1),
            "kills": len(self.kills),
            "calls": calls,
            "judged_twice": calls - distinct,
            "bound": BATCH * sum(kill.judges for kill in self.kills),
        }
        return self.record

    def _gap(self) -> float:
        return _GAP_SECONDS + self.draw.expovariate(1 / _MEAN_SECONDS)

    # ---- progress ----

    def _run(self) -> dict[str, Any] | None:
        try:
            return self.api.run(self.id)
        except AssertionError:
            return None  # Prefect is restarting

    def _look(self, run: Mapping[str, Any] | None) -> None:
        """Note progress, which ends the recovery of every earlier kill, and note what is judged again."""
        if run is not None:
            state = f"{run['state']['name']} {run['run_count']}"
            if [state] != self.record["states"][-1:]:
                self.record["states"].append(state)
        states = tuple(self.record["states"])
        progress = (sum(self.judge.paid.values()), self._parts(), states)
        if progress != self._progress:
            done = progress[:2] != self._progress[:2] or (run is not None and run["state_type"] == "COMPLETED")
            self._progress, self._moved = progress, time.monotonic()
            if done:
                self._recovered("flow", "plain part", "engine", "meter", "raylet", "gcs")
        twice = sum(self.judge.paid.values()) - len(self.judge.paid) - sum(kill.twice for kill in self.kills)
        guilty = [kill for kill in self.kills if kill.judges]
        if twice > 0 and guilty:
            guilty[-1].twice += twice
        alive = self.stage.processes()
        self._recovered(*[kind for kind in ("worker", "supervisor") if alive.get(kind)])
        if run is not None:
            self._recovered("prefect")
        for pid, since in list(self._ending.items()):
            if pid not in alive.get("flow", []):
                del self._ending[pid]
            elif time.monotonic() - since > _ENDING_SECONDS:
                del self._ending[pid]
                self.tally.find(f"curation {self.number}: process {pid} works on though its flow run had ended")

    def _parts(self) -> int:
        try:
            return len(Store(self.store_url).list("parts"))
        except StoreError:
            return -1

    def _recovered(self, *kinds: str) -> None:
        for kill in self.kills:
            if kill.recovery is None and kill.kind in kinds:
                kill.recovery = round(time.monotonic() - self.tally.started - kill.at, 1)

    def _situation(self, run: Mapping[str, Any] | None) -> str:
        alive = {kind: len(pids) for kind, pids in self.stage.processes().items()}
        state = f"{run['state']['name']}: {run['state']['message']}" if run else "no answer"
        return f"flow run {state}; processes {alive}; kills {[kill.kind for kill in self.kills]}"

    def _take(self, run: Mapping[str, Any]) -> None:
        """Accept a flow run that completed, and retry one that did not."""
        if run["state_type"] == "COMPLETED":
            self.record["ended"] = True
            return
        message = str(run["state"]["message"]).splitlines()
        self.tally.say(f"curation {self.number} {run['state']['name']}: {' / '.join(message[:2])[:160]}; retried")
        # A process reports its end before it has ended, so it may still be alive for a moment.
        self._ending |= dict.fromkeys(self.stage.processes().get("flow", []), time.monotonic())
        self.stage.api.retry(self.id)
        self.record["retries"] += 1

    # ---- killing ----

    def _kill_one(self, run: Mapping[str, Any] | None) -> None:
        victim = self._victim()
        if victim is None:
            return
        kind, pids = victim
        judges = len(self.stage.processes().get("engine", [])) if self.judge.paid else 0
        kill = Kill(
            kind,
            round(time.monotonic() - self.tally.started, 1),
            self.number,
            run["state"]["name"] if run else "",
            judges,
        )
        self.stage.kill(kind, pids)
        self.kills.append(kill)
        self.tally.kills.append(kill)
        self.tally.say(f"curation {self.number}: {kind} ({kill.flow_run})")
        started = time.monotonic()
        self.stage.restart(kind)
        if kind == "weed":
            kill.recovery = round(time.monotonic() - started, 1)
        self.tally.write()
        self._moved = time.monotonic()

    def _victim(self) -> tuple[str, list[int]] | None:
        """Draw a kind that needs more kills and wait a little for its process; otherwise take another kind."""
        lacking = self.tally.lacking()
        wanted = self.draw.choices(KINDS, [lacking[kind] for kind in KINDS])[0]
        deadline = time.monotonic() + _VICTIM_SECONDS
        while True:
            alive = self.stage.victims()
            if alive.get(wanted):
                pids = alive[wanted] if wanted in ("gcs", "prefect", "weed") else [self.draw.choice(alive[wanted])]
                return wanted, pids
            if time.monotonic() > deadline:
                there = [kind for kind in KINDS if alive.get(kind) and lacking[kind]]
                if not there:
                    return None
                wanted = self.draw.choices(there, [lacking[kind] for kind in there])[0]
            time.sleep(0.03)


def start(stage: StageSet, config: CurationConfig, store: str, home: Path) -> str:
    """Create the flow run of a curation in a store of its own."""
    keep_config(Store.open(store), config)
    return stage.api.start(f"curate/{config.name}", environment={"RENEG_STORE": store, "RENEG_HOME": str(home)})


def check(stage: StageSet, played: Disturbed, expected: Mapping[str, Any]) -> None:
    """Compare a curation that ended with the one without kills, and look for damaged or temporary files."""
    record, tally = played.record, played.tally
    try:
        wait_until(lambda: not stage.api.open(), "no open run", _SETTLE_SECONDS, 1.0)
    except AssertionError:
        tally.find(f"curation {played.number}: still open after {_SETTLE_SECONDS:.0f} s: {stage.api.open()}")
    try:
        gone = lambda: not {"engine", "flow", "plain part"} & {*stage.processes()}  # noqa: E731
        wait_until(gone, "no process left", 30.0, 1.0)
    except AssertionError:
        tally.find(f"curation {played.number}: processes left: {stage.processes()}")
    try:  # `reneg serve` waits longer before each further start of a worker that keeps dying
        wait_until(lambda: len(stage.processes().get("worker", [])) == 1, "one worker", _BACKOFF_SECONDS, 1.0)
    except AssertionError:
        tally.find(f"curation {played.number}: workers {stage.processes().get('worker', [])}")
    found = {"content": content(played.store_url), "files": laid_out(played.home)}
    different = [name for name, value in expected.items() if found[name] != value]
    record["identical"] = record["ended"] and not different
    if different:
        stages = {s for s in found["content"] if found["content"][s] != expected["content"].get(s)}
        tally.find(f"curation {played.number}: {different} differ from the undisturbed one's: {sorted(stages)}")
    for problem in damaged(played.store_url, played.home):
        tally.find(f"curation {played.number}: {problem}")
    if record["judged_twice"] > record["bound"]:
        tally.find(f"curation {played.number}: {record['judged_twice']} judged twice, bound {record['bound']}")


def write_config(folder: Path, url: str) -> CurationConfig:
    """Write a source of 80 short passages and the configuration that curates it with the endpoint as the judge."""
    engine = {"kind": "openai", "model": "judge-2026-01-01", "base_url": url, "concurrency": 1}
    path = folder / "chaos.yaml"
    config = {
        "name": "chaos",
        "source": {"path": str(write_source(folder / "source"))},
        "ingest": {"query_parts": 5, "passage_parts": 2, "known_split": "known"},
        "encoder": {"model": "tiny:encoder", "max_seq_length": 64},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [{**tier(judge={"batch_size": BATCH}), "engine": engine}],
        "treatments": ["default", "relabel"],
        "train": None,
        "resources": {"encode_passages": {"num_cpus": 1}, "encode_queries": {"num_cpus": 1}},
    }
    path.write_text(yaml.safe_dump(config))
    return load_config(path)


def slowly(body: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """Answer slowly, so that judging can be interrupted."""
    time.sleep(_CALL_SECONDS)
    return answer_by_hash(body)


def run(arguments: argparse.Namespace, folder: Path) -> Tally:
    """Run curations until the kills are done or the time is over; return the tally."""
    head = {
        "command": f"python -m benchmarks.chaos --kills {arguments.kills} --seed {arguments.seed}",
        "seed": arguments.seed,
        "environment": {**QUICK, "python": platform.python_version(), "cores": os.cpu_count(), "ray_nodes": 3},
        "batch": BATCH,
    }
    tally = Tally(arguments.out, arguments.kills, head)
    draw = random.Random(arguments.seed)
    with ExitStack() as stack:
        judge = stack.enter_context(MisbehavingServer(reply=slowly))
        config = write_config(folder, judge.url)
        environment = {**_ENVIRONMENT, "RENEG_ALLOWED_SOURCES": str(folder)}
        stage = stack.enter_context(StageSet(folder / "stage", nodes=2, cpus=1, environment=environment))
        os.environ.update(stage.weed.environment)
        stage.reneg("deploy", str(folder / "chaos.yaml"))
        tally.say("everything is up")
        expected = undisturbed(stage, config, tally)
        calls = len(judge.paid)
        while len(tally.kills) < arguments.kills and not _over(tally, arguments.minutes_at_most):
            played = Disturbed(stage, judge, tally, draw)
            tally.curations.append(played.record)
            record = played.play(config, kills=min(_MOST, arguments.kills - len(tally.kills)))
            check(stage, played, expected)
            if len(judge.paid) != calls and record["ended"]:
                tally.find(f"curation {played.number}: {len(judge.paid)} requests, {calls} undisturbed")
            tally.say(f"curation {played.number}: {json.dumps({k: v for k, v in record.items() if k != 'states'})}")
            tally.write()
    tally.write()
    return tally


def undisturbed(stage: StageSet, config: CurationConfig, tally: Tally) -> dict[str, Any]:
    """Run a curation without kills, with which the others are compared."""
    store, home = "s3://reneg/undisturbed", stage.folder / "homes" / "undisturbed"
    began = time.monotonic()
    ended = stage.api.wait(start(stage, config, store, home), 1200)
    if ended["state_type"] != "COMPLETED":
        raise RuntimeError(f"the undisturbed curation {ended['state']['name']}: {ended['state']['message']}")
    seconds = time.monotonic() - began
    tally.patience = max(_STALL_SECONDS, 1.5 * seconds)
    tally.say(f"undisturbed: {ended['state']['message']} in {seconds:.0f} s")
    return {"content": content(store), "files": laid_out(home)}


def _over(tally: Tally, minutes: float | None) -> bool:
    return minutes is not None and time.monotonic() - tally.started > minutes * 60


def main(arguments: list[str] | None = None) -> Tally:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes-at-most", type=float)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/chaos.json"))
    parser.add_argument("--keep", type=Path, help="a new folder for logs and data, kept")
    wanted = parser.parse_args(arguments)
    folder = wanted.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return run(wanted, folder)
    finally:
        if wanted.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(1 if main().findings else 0)
