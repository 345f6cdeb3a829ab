"""When a curation runs, when it is too late, and until when it may work."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from flows.config.load import parse_config
from flows.config.schedule import NightlyConfig, end_of_night, lateness, night_of
from flows.config.section import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
SCHEDULED = datetime(2026, 11, 23, 2, 30, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "every night"}, "five fields expected"),
        ({"cron": "61 2 * * *"}, "five fields expected"),
        ({"timezone": "Europe/Atlantis"}, "a time zone such as Europe/Berlin expected"),
        ({"end_by": "7"}, "a time of day as HH:MM expected"),
        ({"end_by": "24:00"}, "a time of day as HH:MM expected"),
        ({"overlap": "both"}, "'queue' or 'refuse'"),
    ],
)
def test_a_schedule_that_is_none_is_refused_with_what_was_expected(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"name": "n", "source": {"path": "rows.jsonl"}, "nightly": changes}, "my.yaml")


def test_a_late_night_runs_unless_the_configuration_says_skip() -> None:
    late = SCHEDULED + timedelta(hours=13)
    assert lateness(SCHEDULED, NightlyConfig(), late) is None
    skip = NightlyConfig(missed="skip", late_hours=12)
    assert lateness(SCHEDULED, skip, SCHEDULED + timedelta(hours=11)) is None
    assert "13.0 hours late" in str(lateness(SCHEDULED, skip, late))
    assert lateness(None, skip, late) is None  # started by hand


@pytest.mark.parametrize(
    ("begun", "ends"),
    [
        (datetime(2026, 11, 23, 2, 30, tzinfo=BERLIN), "2026-11-23T07:00:00+01:00"),
        (datetime(2026, 11, 23, 22, 0, tzinfo=BERLIN), "2026-11-24T07:00:00+01:00"),
        (datetime(2026, 10, 24, 22, 0, tzinfo=BERLIN), "2026-10-25T07:00:00+01:00"),  # an hour longer that night
        (datetime(2026, 3, 28, 22, 0, tzinfo=BERLIN), "2026-03-29T07:00:00+02:00"),
    ],
)
def test_a_night_ends_by_the_clock_on_the_wall(begun: datetime, ends: str) -> None:
    end = end_of_night(NightlyConfig(end_by="07:00", timezone="Europe/Berlin"), begun)
    assert end is not None
    assert datetime.fromtimestamp(end, BERLIN).isoformat() == ends
    assert end_of_night(NightlyConfig(), begun) is None


def test_a_night_has_the_date_of_its_own_time_zone() -> None:
    at = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    assert night_of(None, at) == "2026-03-01"
    assert night_of(NightlyConfig(timezone="Europe/Berlin"), at) == "2026-03-02"


def test_a_night_that_is_late_by_exactly_its_hours_still_runs() -> None:
    skip = NightlyConfig(missed="skip", late_hours=12)
    assert lateness(SCHEDULED, skip, SCHEDULED + timedelta(hours=12)) is None
    assert lateness(SCHEDULED, skip, SCHEDULED + timedelta(hours=12, seconds=1)) == (
        "skipped: 12.0 hours late, and nightly.missed is `skip` beyond 12"
    )
    assert "1000.0 hours late" in str(lateness(SCHEDULED, skip, SCHEDULED + timedelta(hours=1000)))
    assert lateness(SCHEDULED, None, SCHEDULED + timedelta(hours=99)) is None


def test_a_night_that_begins_at_the_very_end_has_a_whole_day() -> None:
    begun = datetime(2026, 11, 23, 7, 0, tzinfo=BERLIN)
    end = end_of_night(NightlyConfig(end_by="07:00", timezone="Europe/Berlin"), begun)
    assert end == datetime(2026, 11, 24, 7, 0, tzinfo=BERLIN).timestamp()


def test_the_seconds_of_the_beginning_are_no_part_of_the_end() -> None:
    begun = datetime(2026, 11, 23, 2, 30, 41, 999, tzinfo=BERLIN)
    end = end_of_night(NightlyConfig(end_by="02:31", timezone="Europe/Berlin"), begun)
    assert end == datetime(2026, 11, 23, 2, 31, tzinfo=BERLIN).timestamp()
    assert end_of_night(None, begun) is None


def test_the_defaults_run_once_a_night_and_never_end() -> None:
    assert NightlyConfig().model_dump() == {
        "cron": "30 2 * * *", "timezone": "UTC", "overlap": "queue", "missed": "run", "late_hours": 12.0,
        "end_by": None,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="late_hours"):
        NightlyConfig(late_hours=0)


def test_a_stored_configuration_with_the_usual_schedules_is_read_without_prefect() -> None:
    code = (
        "import sys; from flows.config.schedule import NightlyConfig, RetentionConfig; "
        "NightlyConfig(**NightlyConfig().model_dump()); RetentionConfig(**RetentionConfig().model_dump()); "
        "print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
