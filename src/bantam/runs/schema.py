"""What the JSON files of a run hold: types and ranges, by which `bantam.runs.runfolder` checks what it reads."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Checked(BaseModel):
    """Types as they are, no NaN; further keys are welcome."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Environment(Checked):
    """environment.json: where a run was made, and `data`, the fingerprint of its photographs."""

    data: str
    cores: Count | None = None
    threads: Count | None = None
    processes: Count | None = None
    commit: str | None = None
    resumed: list[str | None] = []


class Probe(Checked):
    """probe.json: how a stage trains, the same for every resumption."""

    precision: Literal["fp32", "bf16"]
    memory_format: Literal["channels_last", "contiguous"]
    threads: Count
    why: str
    machine: str = ""  # runs begun by earlier versions do not say
    micro_batch: Count | None = None  # of a whole batch


class Judged(Checked):
    """A net on the validation split after an epoch."""

    accuracy: Share
    standard_error: Number
    n: Count
    cross_entropy: Number | None = None
    largest_share: Share | None = None


class Epoch(Checked):
    """A line of metrics.jsonl; a refit has no validation."""

    epoch: Count
    lr: Number | None = None
    training: dict[str, float] = {}
    validation: Judged | None = None
    switches: list[Share] | None = None
    seconds: Number | None = None


class Finished(Checked):
    """done.json: what a finished stage came to, and `weights`, the SHA-256 of its best.ckpt."""

    kind: str
    net: str
    parameters: Count
    epochs: Annotated[int, Field(ge=0)]
    best_epoch: Annotated[int, Field(ge=0)]
    seconds: Number
    validation: Judged | None = None
    weights: Digest | None = None


class Divided(Checked):
    """The temperature by which a classifier's logits were divided."""

    temperature: Annotated[float, Field(gt=0)]


class Calibrated(Divided):
    """The temperature of the whole net, and those of its early exits in order."""

    exits: list[Divided] = []


class Chosen(Checked):
    """What validation chose after training, in metrics.json."""

    plain: Share
    n: Count
    accuracy: Share | None = None
    standard_error: Number | None = None
    flip: bool | None = None
    views: str | None = None
    calibration: Calibrated | None = None


class Parameters(Checked):
    """Both counts of the shipped student."""

    unique: Count
    torchsummary: Count


class Result(Checked):
    """metrics.json, the result of a run."""

    validation: Chosen
    parameters: Parameters | None = None
    budget: Count | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    seconds: Number | None = None
    stages: dict[str, dict[str, Any]] = {}


class Confidence(Checked):
    """How sure an early exit must be to answer."""

    threshold: Number


class Threshold(Checked):
    """exits/exits.json, as far as whoever answers needs it: the threshold that validation chose."""

    chosen: Confidence | None
