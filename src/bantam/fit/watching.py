"""What a fit tells whoever looks on, beside what every run tells."""

from bantam.fit.asked import Asked
from bantam.fit.clock import Clock
from bantam.fit.planning import Plan
from bantam.runs.watcher import Watcher


class FitWatcher(Watcher):
    """Does nothing by itself; the command line's display is one."""

    def planned(self, plan: Plan, asked: Asked, clock: Clock) -> None:
        """This is the plan, made now or by an earlier process; `clock` says how much of its time is gone."""

    def handing_over(self) -> None:
        """The last training is finished."""
