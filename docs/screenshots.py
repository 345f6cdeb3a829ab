"""Make the pictures of the README: a night with one failed part in the Prefect UI, and the same night after Retry.

    python -m docs.screenshots            # needs playwright (pip) and Chromium (CHROMIUM=/usr/bin/chromium)

It runs the system of tests/system/test_operations.py: real servers on loopback, and a judge that does not answer one
query.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from infra.prefect_api.server import PrefectServer
from tests.infra.misbehaving import MisbehavingServer
from tests.system.stage_set import StageSet, wait_until
from tests.system.test_operations import KEY, Endpoint, write_config, write_source

IMAGES = Path(__file__).parent / "images"
NAME = "nightly-run"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Run a night, take a picture, retry it, and take another picture."""
    from playwright.sync_api import sync_playwright

    endpoint = Endpoint()
    folder = Path(tempfile.mkdtemp(prefix="reneg-screens-")) / "stage"
    with MisbehavingServer(reply=endpoint) as server, StageSet(folder, nodes=2, cpus=2, environment=KEY) as stage:
        write_source(stage.folder / "source")
        stage.reneg("deploy", str(write_config(stage.folder, NAME, server.url)))
        id_ = stage.api.start(f"nightly/{NAME}")
        assert stage.api.wait(id_, 600)["state_type"] == "FAILED"
        wait_until(lambda: not stage.api.open(id_), "the history is in", 60)
        with sync_playwright() as playwright:
            executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
            browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            ui = stage.api_url().removesuffix("/api")
            log_in(page, ui, PrefectServer(stage.home).auth_string())
            take(page, f"{ui}/runs/flow-run/{id_}", "night-failed")
            endpoint.away.clear()
            page.get_by_role("button", name="Retry").first.click()  # and once more, in the dialogue
            page.get_by_role("button", name="Retry").last.click()
            wait_until(lambda: stage.api.run(id_)["run_count"] > 1, "the worker took the retry up", 180)
            assert stage.api.wait(id_, 600)["state_type"] == "COMPLETED"
            wait_until(lambda: not stage.api.open(id_), "the history is in", 60)
            take(page, f"{ui}/runs/flow-run/{id_}", "night-repaired")
            browser.close()


def log_in(page: Any, ui: str, password: str) -> None:  # noqa: ANN401
    """Log in to the UI as a person does."""
    page.goto(f"{ui}/login", wait_until="load")
    page.get_by_placeholder("admin:pass").fill(password)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard")


def take(page: Any, url: str, name: str) -> None:  # noqa: ANN401 - playwright is not always there
    """Open a page, wait until it no longer changes, and save a picture of it."""
    page.goto(url, wait_until="load")  # the UI keeps a connection open, so the network is never idle
    page.wait_for_timeout(6000)
    IMAGES.mkdir(exist_ok=True)
    page.screenshot(path=str(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    main()
