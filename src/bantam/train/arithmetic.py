"""In which arithmetic a net trains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Arithmetic:
    """How a net is trained: precision "fp32" or "bf16", memory format (a key of FORMATS), threads, and why."""

    precision: str = "fp32"
    memory_format: str = "channels_last"
    threads: int = 1
    why: str = ""

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None

    @property
    def format(self) -> torch.memory_format:
        return FORMATS[self.memory_format]

    def __str__(self) -> str:
        return f"{self.precision}, {self.memory_format}, {self.threads} thread(s)"

    @contextmanager
    def threading(self) -> Iterator[None]:
        """Within it torch uses so many threads; after it as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)


FP32 = Arithmetic()
