"""Arithmetic on logits and nets: accuracy with its uncertainty, calibration, cost."""
