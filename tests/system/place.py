"""One user's machine: the command line in a process of its own, with a home and a store."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.infra.prefect_calls import seed

CONFIG = ROOT / "tests" / "flows" / "small.yaml"


@dataclass(frozen=True)
class Place:
    """One user's machine: a home and a store of their own, the cache of models shared."""

    home: Path
    store: str

    @property
    def environment(self) -> dict[str, str]:
        cache = os.environ["RENEG_TEST_CACHE"]
        named = {"RENEG_HOME": str(self.home), "RENEG_STORE": self.store, "RENEG_CACHE": cache}
        return {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "RAY_ADDRESS")} | named

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.cli.__main__", *arguments]
        seed(self.home)
        return subprocess.Popen(
            command, env=self.environment, cwd=self.home.parent, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, expect: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=1500)
        assert process.returncode == expect, f"{arguments} ended with {process.returncode}:\n{out}\n{err}"
        return out if expect == 0 else err

    def demo(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.run("demo", "--config", str(CONFIG)).splitlines()[-1])
        return record
