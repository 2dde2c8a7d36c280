"""Keeping freed memory in the process.

By default glibc gives large blocks back to the system after every layer, and takes them anew, zeroed page by page, for
the next. `benchmarks/throughput.py` measures what keeping it brings: results/benchmarks/throughput.json has 1.09
times the speed on two quiet cores.
"""

import ctypes
import platform

MEBIBYTE = 2**20
# glibc's names for mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD.
SETTINGS = {-1: 256 * MEBIBYTE, -2: 64 * MEBIBYTE, -3: 64 * MEBIBYTE}


def keep_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 64 MiB for the next layer; gives whether it was told."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(name, value) == 1 for name, value in SETTINGS.items())
