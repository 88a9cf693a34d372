"""Descriptions of targets: data that lowering and cost formulas read."""
