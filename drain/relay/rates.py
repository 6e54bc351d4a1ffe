"""How much each user sent: recipients within the last minute and day, kept in the queue's file."""

from dataclasses import dataclass

from drain.database import Database

_MINUTE_SECONDS = 60.0
_DAY_SECONDS = 86400.0


class OverLimit(Exception):
    """A user has sent enough for now.

    Attributes:
        setting: the limit that was reached, by its setting's name.
        number: its value.
    """

    def __init__(self, setting: str, number: int) -> None:
        super().__init__(setting)
        self.setting = setting
        self.number = number


@dataclass(frozen=True)
class Rates:
    """The limits, 0 for none; raises what `Database` raises."""

    database: Database
    per_minute: int
    per_day: int

    def check(self, user: str, recipients: int, now: float) -> None:
        """Whether that many more would be within the limits.

        Raises:
            OverLimit: they would not.
        """
        limits = (
            ("RATE_LIMIT_PER_MINUTE", self.per_minute, _MINUTE_SECONDS),
            ("RATE_LIMIT_PER_DAY", self.per_day, _DAY_SECONDS),
        )
        with self.database.reading() as db:
            for setting, limit, seconds in limits:
                # What is dated far later than now was noted before a clock was set back.
                query = "SELECT total(recipients) FROM sent WHERE user = ? AND at > ? AND at <= ?"
                if limit and db.execute(query, (user, now - seconds, now + seconds)).fetchone()[0] + recipients > limit:
                    raise OverLimit(setting, limit)

    def take(self, user: str, recipients: int, now: float) -> None:
        """The same, and they count; joins the transaction that is open.

        Raises:
            OverLimit: they would be too many.
        """
        with self.database.writing() as db:
            db.execute("DELETE FROM sent WHERE at <= ? OR at > ?", (now - _DAY_SECONDS, now + _DAY_SECONDS))
            self.check(user, recipients, now)
            db.execute("INSERT INTO sent VALUES (?, ?, ?)", (user, now, recipients))
