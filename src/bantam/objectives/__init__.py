"""What a student learns from: one file per method, and the table of all of them."""

from bantam.objectives.attention import Attention
from bantam.objectives.dist import DIST
from bantam.objectives.dkd import DKD
from bantam.objectives.dml import DML
from bantam.objectives.fitnet import FitNet
from bantam.objectives.kd import KD
from bantam.objectives.objective import Objective
from bantam.objectives.rkd import RKD
from bantam.objectives.self_distillation import SelfDistillation
from bantam.objectives.similarity import Similarity
from bantam.objectives.supervised import Supervised

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "kd": KD,
    "dkd": DKD,
    "dist": DIST,
    "fitnet": FitNet,
    "attention": Attention,
    "similarity": Similarity,
    "rkd": RKD,
    "dml": DML,
    "self_distillation": SelfDistillation,
}

__all__ = ["OBJECTIVES", "Objective"]
