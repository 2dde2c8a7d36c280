"""The tree of errors that a user can cause.

Every message is one line that says what is wrong, where, and what to do. The command line prints the
message alone and exits with status 1; a traceback means a defect of Bantam's own.
"""

import shlex


class BantamError(Exception):
    """The root of everything a user can cause."""

    def __str__(self) -> str:
        """The message on one line; what would move a terminal's cursor or colours stands escaped, as in Python."""
        text = super().__str__()
        return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class BadData(BantamError):
    """A data folder that cannot be used: missing, empty, a class without images, a label out of range."""


class TooShort(BadData):
    """A time in which a data folder cannot be dealt with; `enough` are seconds that would do."""

    def __init__(self, message: str, enough: float) -> None:
        super().__init__(message)
        self.enough = enough


class BadImage(BadData):
    """One file that is not a readable image, or whose size would exhaust memory."""


class NoPicture(BadImage):
    """A file that is no picture of any kind that is read."""


class SplitLeak(BantamError):
    """The evaluation split was offered to something that learns or selects."""


class BadRecipe(BantamError):
    """A recipe with an unknown key, a wrong type, or a name that no table holds."""


class BudgetExceeded(BantamError):
    """A net, or an ensemble's sum, that is heavier than the budget by either count."""


class BadCheckpoint(BantamError):
    """Weights that cannot be loaded: not a state_dict, other shapes, or a pickle that would run code."""


class BadRunFile(BadData):
    """A file of a run that is damaged: no JSON or TOML, not what a run writes, or changed after it was written."""


class RunMismatch(BantamError):
    """A run folder that another recipe, data set or version of the recipe made."""


class RunBusy(BantamError):
    """A run folder in which another process is working."""


class BadPruning(BantamError):
    """A ratio or budget that would empty a layer, or a net whose channels cannot be followed."""


class TrainingStopped(BantamError):
    """Training was stopped by an alarm: a loss that is not finite, or a collapse to one class."""


class BadSubmission(BantamError):
    """A submission or label file with missing, double or unknown ids, or bad categories."""


class BadPackage(BantamError):
    """A code package that cannot be made, is not whole, or is not safe to unpack."""


class BadLeaderboard(BantamError):
    """A leaderboard that is missing, damaged, of other labels, or takes no more submissions today."""


class CannotWrite(BantamError):
    """An output that cannot be written: a full disk, a missing permission."""


class ParityFailed(BantamError):
    """An exported graph that does not compute what the net in PyTorch computes."""


class NotFinite(BantamError):
    """Weights or answers that are NaN or infinite: damaged, or of a training that has diverged."""


def cut(text: str) -> str:
    """What an error shows of `text`: all, or the beginning of a long one."""
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def typed(path: object) -> str:
    """A path as a shell takes it, in a command that an error says: one with a space is one word."""
    return shlex.quote(str(path))
