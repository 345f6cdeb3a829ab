"""The audit of the requirements: what fails it, what is accepted and until when, and that silence is no clean bill."""

import importlib.util
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "infra" / "requirements"
# What pip-audit 2.10 printed, shortened: a version with advisories, one without, one that the index did not know.
REPORT = {
    "dependencies": [
        {"name": "jinja2", "version": "3.1.2", "vulns": [
            {"id": "PYSEC-2024-1", "fix_versions": ["3.1.3"], "aliases": ["CVE-2024-22195", "GHSA-h5c8-rqwp-cp95"]},
            {"id": "GHSA-q2x7-8rv6-6q7h", "fix_versions": [], "aliases": []},
        ]},
        {"name": "idna", "version": "3.20", "vulns": []},
        {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1.0)"},
    ],
    "fixes": [],
}  # fmt: skip
TODAY = date(2026, 11, 23)


def load() -> Any:
    spec = importlib.util.spec_from_file_location("reneg_audit", FOLDER / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reneg_audit"] = module
    spec.loader.exec_module(module)
    return module


audit = load()


def test_a_known_vulnerability_fails_the_audit_and_says_where_it_is_fixed() -> None:
    code, lines = audit.conclude({"cpu.txt": audit.judge(REPORT, {})})
    assert code == 1
    assert "VULNERABLE cpu.txt: jinja2 3.1.2: PYSEC-2024-1; fixed in 3.1.3" in lines
    assert "VULNERABLE cpu.txt: jinja2 3.1.2: GHSA-q2x7-8rv6-6q7h; fixed in no release yet" in lines


def test_an_accepted_one_passes_by_its_name_or_an_alias_until_its_date() -> None:
    text = (
        "# a comment\nCVE-2024-22195  2026-12-31  no templates of strangers\nGHSA-q2x7-8rv6-6q7h 2026-11-23 likewise\n"
    )
    assert audit.conclude({"cpu.txt": audit.judge(REPORT, audit.read_ignored(text, TODAY))})[0] == 0
    late = audit.read_ignored(text, date(2026, 11, 24))
    assert audit.judge(REPORT, late).vulnerable == ("jinja2 3.1.2: GHSA-q2x7-8rv6-6q7h; fixed in no release yet",)


@pytest.mark.parametrize("line", ["CVE-1", "CVE-1 soon because", "CVE-1 2026-12-31"])
def test_an_acceptance_without_date_or_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="identifier, date and reason expected"):
        audit.read_ignored(line, TODAY)


def test_what_the_index_did_not_answer_is_told_and_does_not_fail() -> None:
    nothing = {"dependencies": [found for found in REPORT["dependencies"] if "skip_reason" in found]}
    code, lines = audit.conclude({"cpu.txt": audit.judge(nothing, {}), "dev.txt": audit.Findings(trouble="timed out")})
    assert code == 0
    assert lines == [
        "WARNING cpu.txt: NOT AUDITED; the index gave no advisories for 1 of 1 requirements (ours)",
        "WARNING dev.txt: NOT AUDITED (timed out)",
    ]
    _, partly = audit.conclude({"cpu.txt": audit.judge(REPORT, {"PYSEC-2024-1": "", "GHSA-q2x7-8rv6-6q7h": ""})})
    assert partly == ["WARNING cpu.txt: partly audited; the index gave no advisories for 1 of 3 requirements (ours)"]


def test_an_index_that_cannot_be_reached_is_a_warning_without_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_AUDIT_CACHE_DIR", str(tmp_path))
    (tmp_path / "one.txt").write_text("idna==3.20 --hash=sha256:ab\n")
    found = audit.ask(tmp_path / "one.txt", {})
    assert found.vulnerable == ()
    assert found.trouble or found.skipped
    assert "://" not in found.trouble


@pytest.mark.parametrize("name", audit.FILES)
def test_every_locked_requirement_has_a_hash_and_names_no_host(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert "--hash=sha256:" in text
    assert audit.check_lines(text) == []


def test_a_requirement_without_hash_and_an_address_are_caught() -> None:
    text = "ray==2.60.0 \\\n    --hash=sha256:ab\nfaiss==1.0  # via reneg\nx @ https://host/x.whl --hash=sha256:ab\n"
    assert audit.check_lines(text) == [
        "faiss==1.0: no hash",
        "x @ https://host/x.whl --hash=sha256:ab: an option or an address",
    ]


def test_the_accepted_list_of_the_project_can_be_read() -> None:
    audit.read_ignored((FOLDER / audit.IGNORED).read_text(), date.min)
