"""Times in records, which anybody may have written: they are read without an error."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = ((datetime(year, 1, 2, tzinfo=UTC) - EPOCH) / timedelta(milliseconds=1) for year in (1, 9999))


def time_in(text: str) -> datetime | None:
    """Return the time that a text gives, in UTC, which it means if it names no time zone; None if it gives none."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_at(ms: float) -> datetime:
    """Return a time in ms since 1970, in UTC; one beyond the calendar is at its end."""
    return EPOCH + timedelta(milliseconds=min(max(ms, FIRST), LAST))
