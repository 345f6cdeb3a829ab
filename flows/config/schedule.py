"""The schedule of the nights: when a night begins, what happens to a late one, when it must end; and what is kept."""

import re
from datetime import datetime, timedelta
from functools import cache
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from flows.config.section import Section

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_NIGHTLY, _WEEKLY = "30 2 * * *", "0 12 * * 0"  # the schedules that hold where none is given


class NightlyConfig(Section):
    """The schedule of one configuration.

    cron: five fields, in the time zone: minute, hour, day of month, month, day of week.
    timezone: as the tz database names it. late_hours: a night that starts more hours late than this is too late.
    overlap: a night that is due while another of the same configuration runs waits (`queue`) or is dropped (`refuse`).
    missed: a night that is too late runs all the same (`run`) or not at all (`skip`). Several missed nights cost no
        more than one, because the later ones find nothing to compute.
    end_by: a time of day, HH:MM, at which a night stops. What it finished is kept, and the next night continues.
    """

    cron: str = _NIGHTLY
    timezone: str = "UTC"
    overlap: Literal["queue", "refuse"] = "queue"
    missed: Literal["run", "skip"] = "run"
    late_hours: float = Field(12.0, gt=0)
    end_by: str | None = None

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"a time zone such as Europe/Berlin expected, {name!r} came") from error
        return name

    @field_validator("end_by")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is not None and not _TIME.fullmatch(text):
            raise ValueError(f"a time of day as HH:MM expected (in quotes, or YAML reads a number), {text!r} came")
        return text

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        check_cron(self.cron, self.timezone)
        return self


@cache  # configurations are read many times
def check_cron(cron: str, timezone: str = "UTC") -> None:
    """Check a schedule.

    Raises:
        ValueError: it is no cron expression.
    """
    if cron in (_NIGHTLY, _WEEKLY):  # the commands that read a stored configuration need not wait 2 s for the import
        return
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise ValueError(f"cron: five fields expected, such as '30 2 * * *', {cron!r} came") from error


def lateness(scheduled: datetime | None, nightly: NightlyConfig | None, now: datetime | None = None) -> str | None:
    """Return why a night is skipped for starting too late; None if it is not skipped."""
    if scheduled is None or nightly is None or nightly.missed == "run":
        return None
    late = (now or datetime.now().astimezone()) - scheduled
    if late <= timedelta(hours=nightly.late_hours):
        return None
    hours = late.total_seconds() / 3600
    return f"skipped: {hours:.1f} hours late, and nightly.missed is `skip` beyond {nightly.late_hours:g}"


def end_of_night(nightly: NightlyConfig | None, now: datetime) -> float | None:
    """Return when a night that begins now must end, in seconds since the epoch; None for no end.

    >>> night = NightlyConfig(end_by="07:00", timezone="Europe/Berlin")
    >>> begun = datetime(2026, 3, 1, 22, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    >>> datetime.fromtimestamp(end_of_night(night, begun), ZoneInfo("Europe/Berlin")).isoformat()
    '2026-03-02T07:00:00+01:00'
    """
    if nightly is None or nightly.end_by is None:
        return None
    zone = ZoneInfo(nightly.timezone)
    hour, minute = map(int, nightly.end_by.split(":"))
    here = now.astimezone(zone)
    end = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if end <= here:
        end = (here.replace(tzinfo=None) + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        end = end.replace(tzinfo=zone)  # local time, also on days when summer time begins or ends
    return end.timestamp()


def night_of(nightly: NightlyConfig | None, now: datetime) -> str:
    """Return the date (YYYY-MM-DD) of the night that begins at a time, in the schedule's time zone, or in UTC."""
    zone = ZoneInfo(nightly.timezone if nightly else "UTC")
    return now.astimezone(zone).date().isoformat()


class RetentionConfig(Section):
    """What `reneg gc` keeps of each name, and when it runs by itself. Curations of kept releases are always kept."""

    curations: int = Field(30, ge=1, description="So many of the newest curations are kept.")
    days: float = Field(30.0, ge=0, description="Curations that worked within so many days are kept too.")
    unfinished_days: float = Field(
        90.0,
        ge=0,
        description="So many days an unfinished curation is kept after its last work; it may wait for labels.",
    )
    releases: int = Field(5, ge=1, description="So many of the newest releases are kept, the current one included.")
    cron: str | None = Field(_WEEKLY, description="When `gc/any` runs, in UTC; null: not for this configuration.")

    @field_validator("cron")
    @classmethod
    def _is_a_schedule(cls, cron: str | None) -> str | None:
        if cron is not None:
            check_cron(cron)
        return cron
