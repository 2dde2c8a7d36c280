"""What the decoders remark about a file that they can read all the same, kept with the file instead of on the screen.

Pillow warns ("Truncated File Read") and logs. Both belong to the whole process, while many threads decode images:
so there is one hook for all of them, which keeps a thread's remarks in a list of its own where it asked for them, and
passes everything else on.
"""

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

_DECODERS = "PIL|pillow_heif"

_here = threading.local()
_installing = threading.Lock()


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Within, what the decoders remark in this thread is added to the list, each sentence once, and shown nowhere.

    Where this thread listens already, it is the same list.
    """
    _install()
    outer: list[str] | None = getattr(_here, "remarks", None)
    _here.remarks = remarks = [] if outer is None else outer
    try:
        yield remarks
    finally:
        _here.remarks = outer


class _Hook:
    """Stands in the place of warnings.showwarning."""

    def __init__(self, before: Callable[..., None]) -> None:
        self.before = before

    def __call__(self, message: Warning | str, *where: Any, **more: Any) -> None:
        if not _kept(str(message)):
            self.before(message, *where, **more)


class _Handler(logging.Handler):
    """Keeps what is logged, and is there, so that Python does not print it for want of a handler."""

    def emit(self, record: logging.LogRecord) -> None:
        _kept(record.getMessage())


logging.getLogger("PIL").addHandler(_Handler(logging.WARNING))

# libtiff would print what it does not like past Python, to standard error; that a file is damaged is told anyway.
with contextlib.suppress(OSError, AttributeError):
    _libtiff = ctypes.CDLL(Image.core.__file__)
    _libtiff.TIFFSetErrorHandler(None)
    _libtiff.TIFFSetWarningHandler(None)


def _install() -> None:
    # At each use: whoever leaves `warnings.catch_warnings` takes away what was installed within.
    with _installing:
        if not isinstance(warnings.showwarning, _Hook):
            warnings.showwarning = _Hook(warnings.showwarning)
        first = warnings.filters[0] if warnings.filters else None
        if first is None or first[0] != "always" or getattr(first[3], "pattern", first[3]) != _DECODERS:
            # What was said of one file would otherwise not be said of the next, or would be raised as an error.
            warnings.filterwarnings("always", module=_DECODERS)


def _kept(remark: str) -> bool:
    remarks: list[str] | None = getattr(_here, "remarks", None)
    if remarks is None:
        return False
    sentence = " ".join(remark.split()).rstrip(".")
    if sentence not in remarks:
        remarks.append(sentence)
    return True
