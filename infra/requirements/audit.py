"""Audit the locked requirements: every one with its hash and from no named host, none with a known vulnerability.

Run by `make check`. Advisories come from the package index, through pip-audit. Where the index gives none (a mirror may
not) the audit says so loudly and does not fail; a vulnerability that audit-ignore.txt does not name fails it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FILES = (
    "s3.txt",
    "cluster.txt",
    "dev.txt",
    "cpu.txt",
    "gpu.txt",
)  # the smallest first: it tells whether the index answers
IGNORED = "audit-ignore.txt"
_SECONDS = 600
_SHOWN = 5


@dataclass(frozen=True)
class Findings:
    """What an audit of one file said.

    vulnerable: one line for each vulnerability that is not ignored. audited, skipped: requirements with and without
    an answer. trouble: why there was no answer at all.
    """

    vulnerable: tuple[str, ...] = ()
    audited: int = 0
    skipped: tuple[str, ...] = ()
    trouble: str = ""


def check_lines(text: str) -> list[str]:
    r"""List what is wrong with a locked requirements file itself: no hash, a host name, an option.

    >>> check_lines("ray==2.60.0 \\\n    --hash=sha256:ab\nfaiss==1.0\n--index-url https://host/simple\n")
    ['faiss==1.0: no hash', '--index-url https://host/simple: an option or an address']
    """
    problems = []
    plain = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", plain).splitlines():
        requirement = " ".join(line.split())
        if not requirement:
            continue
        if requirement.startswith("-") or "://" in requirement:
            problems.append(f"{requirement}: an option or an address")
        elif "--hash=sha256:" not in requirement:
            problems.append(f"{requirement}: no hash")
    return problems


def read_ignored(text: str, today: date) -> dict[str, str]:
    """Read what is accepted, as reason by identifier; an entry whose date has passed is left out.

    Raises:
        ValueError: a line is not an identifier, a date and a reason.
    """
    ignored = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            identifier, until, reason = line.split(maxsplit=2)
            if date.fromisoformat(until) >= today:
                ignored[identifier] = reason
        except ValueError as error:
            raise ValueError(f"{IGNORED}: identifier, date and reason expected, got {line!r}") from error
    return ignored


def judge(report: Mapping[str, Any], ignored: Mapping[str, str]) -> Findings:
    """Sort what pip-audit reported (its JSON) into what fails the audit and what had no answer."""
    vulnerable, skipped, audited = [], [], 0
    for dependency in report["dependencies"]:
        if "skip_reason" in dependency:
            skipped.append(str(dependency["name"]))
            continue
        audited += 1
        for found in dependency["vulns"]:
            if not {found["id"], *found.get("aliases", ())} & set(ignored):
                fixed = ", ".join(found.get("fix_versions") or ["no release yet"])
                vulnerable.append(f"{dependency['name']} {dependency['version']}: {found['id']}; fixed in {fixed}")
    return Findings(tuple(vulnerable), audited, tuple(skipped))


def ask(path: Path, ignored: Mapping[str, str]) -> Findings:
    """Audit one file; the index is asked for each version's advisories."""
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(path), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        return judge(json.loads(done.stdout), ignored)
    except subprocess.TimeoutExpired:
        return Findings(trouble=f"no answer within {_SECONDS} s")
    except (ValueError, LookupError, TypeError):
        lines = done.stderr.strip().splitlines()
        return Findings(trouble=re.sub(r"https?://\S+|host='[^']*'", "…", lines[-1])[:200] if lines else "no report")


def conclude(findings: Mapping[str, Findings]) -> tuple[int, list[str]]:
    """Give the exit code and the lines to show, for the findings by file."""
    lines, failed = [], False
    for name, found in findings.items():
        failed |= bool(found.vulnerable)
        lines += [f"VULNERABLE {name}: {line}" for line in found.vulnerable]
        if found.trouble:
            lines.append(f"WARNING {name}: NOT AUDITED ({found.trouble})")
        elif found.skipped:
            shown = ", ".join(found.skipped[:_SHOWN]) + (", …" if len(found.skipped) > _SHOWN else "")
            what = "NOT AUDITED" if not found.audited else "partly audited"
            lines.append(f"WARNING {name}: {what}; the index gave no advisories for {len(found.skipped)} of "
                         f"{len(found.skipped) + found.audited} requirements ({shown})")  # fmt: skip
        else:
            lines.append(f"{name}: {found.audited} requirements audited")
    if failed:
        lines.append(f"Raise the versions (`make lock`), or accept each with a reason and a date in {IGNORED}.")
    return int(failed), lines


def main(files: Iterable[str] = FILES, folder: Path = FOLDER) -> int:
    """Check every file; returns the exit code."""
    paths = [folder / name for name in files]
    wrong = [f"{path.name}: {problem}" for path in paths for problem in check_lines(path.read_text())]
    if wrong:
        return _say(1, wrong)
    ignored = read_ignored((folder / IGNORED).read_text(), datetime.now(UTC).date())
    findings: dict[str, Findings] = {}
    for path in paths:
        findings[path.name] = ask(path, ignored)
        if not findings[path.name].audited:
            break
    code, lines = conclude(findings)
    left = [path.name for path in paths[len(findings) :]]
    if left:
        lines.append(f"WARNING {', '.join(left)}: NOT AUDITED and not asked for, since the index answered nothing")
    return _say(code, lines)


def _say(code: int, lines: Sequence[str]) -> int:
    sys.stderr.write("".join(f"audit: {line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
