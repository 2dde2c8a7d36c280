"""Where a run takes place: the machine, the versions, the commit."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """The machine, the versions, the commit and the command, without any path or host name."""
    import torch  # here alone: a Watcher also looks on where nothing needs torch

    packages = ["bantam", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn"]
    return {
        "command": ["bantam", *(Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:])],
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of Bantam's own checkout, with "+" where tracked files differ from it.

    Outside of a checkout, what the environment's BANTAM_COMMIT says, or None.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("BANTAM_COMMIT")
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def processor() -> str:
    """The processor's name, and which of the instruction sets that matter for speed it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(known)})"
