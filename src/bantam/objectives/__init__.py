"""What a student learns from: one file per method, and the table of all of them."""

from bantam.objectives.objective import Objective
from bantam.tables import Table

OBJECTIVES: Table[type[Objective]] = Table(
    "bantam.objectives",
    {
        "supervised": "supervised:Supervised",
        "kd": "kd:KD",
        "dkd": "dkd:DKD",
        "dist": "dist:DIST",
        "fitnet": "fitnet:FitNet",
        "attention": "attention:Attention",
        "similarity": "similarity:Similarity",
        "rkd": "rkd:RKD",
        "dml": "dml:DML",
        "self_distillation": "self_distillation:SelfDistillation",
    },
)

__all__ = ["OBJECTIVES", "Objective"]
