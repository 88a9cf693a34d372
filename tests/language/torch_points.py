"""What torch gives at the points where formulas meet: `special_points.json` holds it, for machines without torch.

    python -m tests.language.torch_points

writes that file. Takes functions of torch; gives values, first and second derivatives in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

Wanted = Callable[[torch.Tensor], torch.Tensor]
Numbers = dict[str, list[list[float]]]

KEPT = Path(__file__).parent / "special_points.json"
POINTS = (-30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 30.0)
ENDS = (-float("inf"), float("inf"), float("nan"), -0.0)
FUNCTIONS: dict[str, tuple[int, Wanted]] = {
    "softplus": (2, functional.softplus),
    "logsigmoid": (2, functional.logsigmoid),
    "mish": (2, functional.mish),
    "silu": (2, functional.silu),
    "gelu": (2, functional.gelu),
    "softsign": (2, functional.softsign),
    "log1p of squares": (2, lambda x: torch.log1p(x * x)),
    "third power": (2, lambda x: x**3.0),
    "atan2 to one": (2, lambda x: torch.atan2(x, torch.ones_like(x))),
    "hypot of one": (2, lambda x: torch.hypot(x, torch.ones_like(x))),
    "logaddexp of zero": (2, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "expm1": (2, torch.expm1),
    "relu": (1, functional.relu),
    "relu6": (1, functional.relu6),
    "leaky_relu": (1, functional.leaky_relu),
    "elu": (1, functional.elu),
    "elu of 2": (1, lambda x: functional.elu(x, 2.0)),
    "celu": (1, functional.celu),
    "celu of 2": (1, lambda x: functional.celu(x, 2.0)),
    "selu": (1, functional.selu),
    "hard_swish": (1, functional.hardswish),
    "absolute": (1, torch.abs),
    "clip": (1, lambda x: x.clamp(-1.0, 1.0)),
    "clip from zero": (1, lambda x: x.clamp(min=0.0)),
    "clip to one": (1, lambda x: x.clamp(max=1.0)),
    "maximum": (1, lambda x: torch.maximum(x, x * x)),
    "ONNX Softplus": (2, functional.softplus),
    "ONNX Mish": (2, functional.mish),
    "ONNX Relu": (1, functional.relu),
    "ONNX LeakyRelu": (1, lambda x: functional.leaky_relu(x, 0.2)),
    "ONNX PRelu": (1, lambda x: functional.prelu(x, torch.tensor([0.25], dtype=x.dtype))),
    "ONNX Elu": (1, lambda x: functional.elu(x, 2.0)),
    "ONNX Celu": (1, lambda x: functional.celu(x, 2.0)),
    "ONNX Selu": (1, functional.selu),
    "ONNX HardSwish": (1, functional.hardswish),
    "ONNX HardSigmoid": (1, functional.hardsigmoid),
    "ONNX ThresholdedRelu": (1, lambda x: functional.threshold(x, 0.5, 0.0)),
    "ONNX Clip": (1, lambda x: x.clamp(-1.0, 1.0)),
    "ONNX Max": (1, functional.relu),
}


def numbers() -> Numbers:
    """The value of each function and its derivatives up to an order; of some at infinities and NaN."""
    found = {name: _derived(function, order) for name, (order, function) in FUNCTIONS.items()}
    for name in ("softplus", "elu", "leaky_relu", "celu", "selu"):
        found[f"{name} at the ends"] = [getattr(functional, name)(torch.tensor(ENDS)).tolist()]
    return found


def _derived(function: Wanted, order: int) -> list[list[float]]:
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    found = [function(x)]
    while len(found) <= order:
        (slope,) = torch.autograd.grad(found[-1].sum(), x, create_graph=True)
        found.append(slope)
    return [each.tolist() for each in found]


if __name__ == "__main__":
    KEPT.write_text(json.dumps(numbers(), indent=1) + "\n", encoding="utf-8")
