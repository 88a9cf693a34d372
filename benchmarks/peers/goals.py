"""What each recipe is held to, and the sets of them.

Takes samples of one case's rounds; gives how it stands beside its goal. Invariant: like ratios, a standing compares
samples of one round only; this module imports no peer and no PyTorch, so that exported files are enough to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.peers.limits import LIMITS
from benchmarks.peers.rounds import Ratio, best_peer, ratio

# At least so many times as fast as the best peer; at most so many times the larger limit; at least this share of what
# one core multiplies and adds; at least this share of what memory gives.
Kind = Literal["peer", "limit", "peak", "memory"]

_PEERS: Final = ("onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class Goal:
    """`peers`: those that count, all if empty; `operations`: multiplications and additions, for `peak`."""

    kind: Kind
    bound: float
    peers: tuple[str, ...] = ()
    operations: int = 0

    def met(self, median: float) -> bool:
        """Whether a median reaches the bound."""
        return median <= self.bound if self.kind == "limit" else median >= self.bound


@dataclass(frozen=True, slots=True)
class Standing:
    """A goal, what was found, against whom, and whether that is enough."""

    goal: Goal
    against: str
    found: Ratio
    met: bool

    def text(self) -> str:
        """In words."""
        sign = "at most" if self.goal.kind == "limit" else "at least"
        interval = f"{self.found.median:.3f} ({self.found.low:.3f} to {self.found.high:.3f})"
        return f"{'met' if self.met else 'MISSED'}: {interval} x {self.against}, {sign} {self.goal.bound:g}"


def _kernel(bound: float) -> Goal:
    return Goal("peer", bound, _PEERS)


MODELS: Final[dict[str, Goal | None]] = {
    "mlp": Goal("peer", 1.2),
    "mobilenetv2": Goal("peer", 1.5),
    "resnet50": Goal("peer", 1.15),
    "bert_base": Goal("peer", 1.15),
    "gpt2_decode": Goal("peer", 1.0),
}
KERNELS: Final[dict[str, Goal | None]] = {
    "conv3x3": _kernel(1.6),
    "conv3x3_alone": _kernel(1.6),
    "conv1x1": _kernel(1.2),
    "conv1x1_alone": _kernel(1.2),
    "depthwise3x3": _kernel(2.0),
    "depthwise3x3_alone": _kernel(2.0),
    "mobile_block": _kernel(1.9),
    "mobile_block_alone": _kernel(1.9),
    "attention": _kernel(1.4),
    "feed_forward": _kernel(1.2),
    "feed_forward_tokens": _kernel(1.2),
    "softmax": Goal("limit", 1.25),
    "layer_norm": Goal("limit", 1.25),
    "product": Goal("peak", 0.82, operations=2 * 1024**3),
    "product_of_inputs": Goal("peak", 0.82, operations=2 * 1024**3),
    "call": None,
}
NETWORKS: Final[dict[str, Goal | None]] = dict.fromkeys(
    (
        "vgg11", "resnet18", "resnext50", "densenet121", "squeezenet", "inception", "shufflenetv2", "mobilenetv3",
        "efficientnetb0", "convnext", "repvgg",
        "unet", "deeplab_head", "dcgan", "espcn", "r3d", "unet3d", "rrdb", "diffusion", "yolo_neck", "wavenet",
        "hifigan", "nerf",
        "vit", "mixer", "gpt2_prompt", "gpt2_long", "llama_prompt", "llama_decode", "conformer", "tcn", "lstm", "gru",
        "pointnet", "dlrm", "swin", "detr", "gcn", "subsampling", "textcnn", "autoencoder",
        "experts_decode", "experts", "deberta",
    ),
    Goal("peer", 1.0),
)  # fmt: skip
_BATCHES: Final = dict.fromkeys(("resnet50_batch8", "bert_base_batch8"), Goal("peer", 1.05))
GOALS: Final = {**MODELS, **KERNELS, **NETWORKS, **_BATCHES}
# What is limited by its weights, read once a run.
STREAMED: Final = {"gpt2_decode": Goal("memory", 0.9)}
BATCHED: Final = ("resnet50", "bert_base")
SETS: Final = {
    "models": tuple(MODELS),
    "kernels": tuple(KERNELS),
    "networks": tuple(NETWORKS),
    "all": (*MODELS, *KERNELS, *NETWORKS),
}


def standing(
    goal: Goal | None, samples: Mapping[str, Sequence[float]], peaks_gflops: Sequence[float]
) -> Standing | None:
    """How the rounds stand beside the goal; None without a goal, or where what it needs was not measured."""
    own = samples.get("tessera")
    if goal is None or own is None:
        return None
    match goal.kind:
        case "peer":
            peers = {n: s for n, s in samples.items() if n not in LIMITS and (not goal.peers or n in goal.peers)}
            against = best_peer(peers)
            if against is None:
                return None
            found = ratio(peers[against], own)
        case "limit":
            limits = [samples[name] for name in LIMITS if name in samples]
            if len(limits) < len(LIMITS):
                return None
            found, against = ratio(own, list(map(max, *limits))), f"the larger of {' and '.join(LIMITS)}"
        case "peak":
            least = [goal.operations / (peak * 1e9) for peak in peaks_gflops]
            found, against = ratio(least, own), "the peak of multiply-adds"
        case "memory":
            return None
    return Standing(goal, against, found, goal.met(found.median))


def share_of_memory(goal: Goal, own: Sequence[float], read_bytes: int, gbps: Sequence[float]) -> Standing:
    """How fast what must be read was read, beside what memory gave in the same rounds."""
    found = ratio([read_bytes / (each * 1e9) for each in gbps], own)
    return Standing(goal, "what memory gives", found, goal.met(found.median))
