"""Resizing, grids, regions, signals and recurrences.

Takes a Draw; gives nodes. Invariant: scales and sizes are drawn so that every extent of the result is at least 1.
"""

from __future__ import annotations

import numpy as np

from tests.redrawn.cases import Maker
from tests.redrawn.draw import ABSENT, Draw, Drawn, Operand, fixed

_WAYS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")


def resize(draw: Draw) -> Drawn:
    """Resize by scales or to sizes."""
    opset, rank = draw.opset("Resize", 11), draw.one([3, 4, 4, 4, 5, 2])
    mode = draw.one(["nearest", "linear", "linear", "cubic"] if rank == 4 else ["nearest", "linear"])
    shape = tuple(draw.extent(1, False) for _ in range(rank))
    found: dict[str, object] = {"mode": mode}
    if draw.maybe(0.8):
        ways = [*_WAYS, "half_pixel_symmetric"] if opset >= 19 else _WAYS
        found["coordinate_transformation_mode"] = draw.one(ways)
    if mode == "nearest" and draw.maybe(0.7):
        found["nearest_mode"] = draw.one(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic" and draw.maybe():
        found |= {"cubic_coeff_a": draw.one([-0.5, -0.75]), "exclude_outside": draw.whole(0, 1)}
    if opset >= 18 and mode != "nearest" and draw.maybe(0.3):
        found["antialias"] = draw.whole(0, 1)
    kept = rank - 2 if rank > 2 else 0
    axes = None
    if opset >= 18 and draw.maybe(0.3):
        axes = found["axes"] = list(range(kept, rank))
        kept = 0
    count = len(axes) if axes else rank
    extents = shape[-count:] if axes else shape
    absent = [ABSENT] if opset >= 13 or draw.maybe(0) else [fixed(np.zeros(0), np.float32, 1)]
    if draw.maybe():
        sizes = [e if i < kept else draw.whole(1, 12) for i, e in enumerate(extents)]
        none = ABSENT if opset >= 13 else fixed(np.zeros(0), np.float32, 1)
        return Drawn("Resize", [draw.data(shape), *absent, none, fixed(sizes)], found, opset)
    scales = [1.0 if i < kept else draw.one([1.0, 2.0, 1.5, 0.5, 3.0, 0.75, 2.3]) for i in range(count)]
    scales = [s if int(s * e) else 1.0 for s, e in zip(scales, extents, strict=True)]
    return Drawn("Resize", [draw.data(shape), *absent, fixed(scales, np.float32)], found, opset)


def upsample(draw: Draw) -> Drawn:
    """Upsample of opsets 7 to 9."""
    opset = draw.whole(7, 9)
    found: dict[str, object] = {"mode": draw.one(["nearest", "linear"])}
    shape = tuple(draw.extent(1, False) for _ in range(4))
    scales = [1.0, 1.0, draw.one([1.0, 2.0, 3.0]), draw.one([1.0, 2.0, 1.5])]
    if opset < 9:
        return Drawn("Upsample", [draw.data(shape)], {**found, "scales": scales}, opset)
    return Drawn("Upsample", [draw.data(shape), fixed(scales, np.float32)], found, opset)


def grid_sample(draw: Draw) -> Drawn:
    """GridSample inside and outside of the image."""
    opset = draw.opset("GridSample", 16)
    modes = ["bilinear", "nearest", "bicubic"] if opset < 20 else ["linear", "nearest", "cubic"]
    found = {
        "mode": draw.one(modes),
        "padding_mode": draw.one(["zeros", "border", "reflection"]),
        "align_corners": draw.whole(0, 1),
    }
    batch = draw.extent(1, False)
    shape = (batch, draw.whole(1, 3), draw.extent(2, False), draw.extent(2, False))
    grid = draw.between(-1.4, 1.4, (batch, draw.extent(1, False), draw.extent(1, False), 2))
    return Drawn("GridSample", [draw.data(shape), Operand(grid, 0.2)], found, opset)


def affine_grid(draw: Draw) -> Drawn:
    """AffineGrid in two or three axes."""
    axes, batch = draw.one([2, 3]), draw.whole(1, 3)
    size = fixed([batch, 2, *(draw.whole(1, 6) for _ in range(axes))])
    return Drawn(
        "AffineGrid",
        [draw.data((batch, axes, axes + 1)), size],
        {"align_corners": draw.whole(0, 1)},
        draw.opset("AffineGrid", 20),
    )


def roi_align(draw: Draw) -> Drawn:
    """RoiAlign by average or maximum."""
    opset, regions, batch = draw.opset("RoiAlign", 10), draw.extent(1, False), draw.whole(1, 2)
    found: dict[str, object] = {"output_height": draw.whole(1, 4), "output_width": draw.whole(1, 4)}
    found |= {
        "sampling_ratio": draw.whole(0, 3),
        "spatial_scale": draw.one([1.0, 0.5]),
        "mode": draw.one(["avg", "max"]),
    }
    if opset >= 16 and draw.maybe():
        found["coordinate_transformation_mode"] = draw.one(["half_pixel", "output_half_pixel"])
    corner = draw.between(0, 6, (regions, 2))
    boxes = np.concatenate([corner, np.add(corner, draw.between(0.5, 5, (regions, 2)))], 1).astype(np.float32)
    x = draw.data((batch, draw.whole(1, 3), draw.extent(4, False), draw.extent(4, False)))
    return Drawn(
        "RoiAlign", [x, Operand(boxes, 0.2), Operand(draw.between(0, batch, (regions,), np.int64), 0.2)], found, opset
    )


def fourier(draw: Draw) -> Drawn:
    """DFT of real or complex signals, either way."""
    opset, parts = draw.opset("DFT", 17), draw.one([1, 2])
    shape = (draw.extent(1, False), *(draw.extent(1, False) for _ in range(draw.whole(1, 2))), parts)
    axis = draw.whole(1, len(shape) - 2)
    found: dict[str, object] = {}
    if draw.maybe(0.4):
        found["inverse"] = draw.whole(0, 1)
    if parts == 1 and not found.get("inverse") and draw.maybe():
        found["onesided"] = 1
    length = draw.optional(fixed(draw.whole(1, 12)), 0.4)
    if opset < 20:
        return Drawn("DFT", [draw.data(shape), length], {**found, "axis": axis}, opset)
    return Drawn("DFT", [draw.data(shape), length, fixed(axis)], found, opset)


def short_fourier(draw: Draw) -> Drawn:
    """STFT with a window, a frame length or both."""
    frame, step = draw.whole(2, 8), draw.whole(1, 4)
    signal = draw.data((draw.extent(1, False), frame + draw.extent(1, False), 1))
    window = draw.optional(draw.weight((frame,)), 0.6)
    length = fixed(frame) if window is ABSENT else draw.optional(fixed(frame))
    return Drawn("STFT", [signal, fixed(step), window, length], {"onesided": draw.whole(0, 1)}, draw.opset("STFT"))


def window(op: str) -> Maker:
    def make(draw: Draw) -> Drawn:
        return Drawn(
            op,
            [fixed(draw.whole(1, 20), chance=0.8)],
            {"periodic": draw.whole(0, 1)} if draw.maybe(0.7) else {},
            draw.opset(op),
        )

    return make


def mel_weights(draw: Draw) -> Drawn:
    """MelWeightMatrix of a small bank."""
    rate = draw.one([8000, 16000])
    operands = [fixed(draw.whole(1, 8)), fixed(draw.one([16, 33, 64])), fixed(rate)]
    operands += [fixed(draw.real(0, 200), np.float32), fixed(draw.real(1000, rate / 2), np.float32)]
    return Drawn("MelWeightMatrix", operands, {}, draw.opset("MelWeightMatrix"))


def recurrent(op: str, gates: int) -> Maker:
    def make(draw: Draw) -> Drawn:
        direction = draw.one(["forward", "reverse", "bidirectional"])
        ways, hidden, width = 1 + (direction == "bidirectional"), draw.whole(1, 6), draw.whole(1, 5)
        steps, batch = draw.extent(1, False), draw.extent(1, False)
        found: dict[str, object] = {"hidden_size": hidden}
        if direction != "forward" or draw.maybe():
            found["direction"] = direction
        if op == "GRU" and draw.maybe(0.6):
            found["linear_before_reset"] = draw.whole(0, 1)
        if draw.maybe(0.15):
            found["clip"] = 0.5
        weights = [(ways, gates * hidden, width), (ways, gates * hidden, hidden)]
        lengths = Operand(draw.between(1, steps + 1, (batch,), np.int64).astype(np.int32), 0.1)
        optional = [
            draw.optional(draw.weight((ways, 2 * gates * hidden))),
            draw.optional(lengths, 0.3),
            draw.optional(draw.data((ways, batch, hidden))),
        ]
        if op == "LSTM":
            optional.append(draw.optional(draw.data((ways, batch, hidden))))
            optional.append(draw.optional(draw.weight((ways, 3 * hidden)), 0.3))
        outputs = draw.one([["y", "h"], ["y"], ["", "h"]])
        operands = [draw.data((steps, batch, width)), *(Operand(draw.values(s), 0.8) for s in weights), *optional]
        return Drawn(
            op, operands, found, draw.opset(op), [*outputs, "c"] if op == "LSTM" and len(outputs) == 2 else outputs
        )

    return make


def attention(draw: Draw) -> Drawn:
    """Attention of four axes with shared heads, masks and caps."""
    heads, shared, width, value = draw.whole(1, 3), draw.whole(1, 2), draw.one([1, 2, 4, 8]), draw.one([2, 4])
    batch, queries, keys = draw.whole(1, 2), draw.extent(1, False), draw.extent(1, False)
    found: dict[str, object] = {}
    if draw.maybe(0.3):
        found["is_causal"] = 1
    if draw.maybe(0.3):
        found["scale"] = draw.real(0.1, 1)
    if draw.maybe(0.2):
        found["softcap"] = draw.real(1, 5)
    mask = ABSENT
    if draw.maybe(0.4):
        shape = draw.one([(queries, keys), (1, 1, queries, keys), (batch, heads * shared, queries, keys)])
        mask = Operand(draw.values(shape, draw.one([np.float32, np.bool_])), 0.2)
        if mask.array is not None and mask.array.dtype == np.bool_:
            mask.array[..., 0] = True
    if draw.maybe(0.4):
        found |= {"q_num_heads": heads * shared, "kv_num_heads": heads}
        shapes = ((batch, queries, heads * shared * width), (batch, keys, heads * width), (batch, keys, heads * value))
    else:
        shapes = ((batch, heads * shared, queries, width), (batch, heads, keys, width), (batch, heads, keys, value))
    return Drawn("Attention", [*(draw.data(s) for s in shapes), mask], found, draw.opset("Attention", 23))


def rotary(draw: Draw) -> Drawn:
    """com.microsoft's RotaryEmbedding, or none where ONNX's own is absent from the table."""
    batch, steps, heads, half = draw.whole(1, 3), draw.extent(1, False), draw.whole(1, 3), draw.whole(1, 4)
    longest = steps + draw.whole(0, 4)
    positions = Operand(draw.between(0, longest, (batch, steps), np.int64), 0.2)
    tables = [Operand(draw.values((longest, half)), 0.8) for _ in range(2)]
    found = {"interleaved": draw.whole(0, 1)}
    x = draw.data((batch, heads, steps, 2 * half))
    return Drawn("RotaryEmbedding", [x, positions, *tables], found, 1, domain="com.microsoft")


MAKERS: dict[str, Maker] = {
    "Resize": resize,
    "Upsample": upsample,
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
    "RoiAlign": roi_align,
    "DFT": fourier,
    "STFT": short_fourier,
    **{op: window(op) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")},
    "MelWeightMatrix": mel_weights,
    "RNN": recurrent("RNN", 1),
    "GRU": recurrent("GRU", 3),
    "LSTM": recurrent("LSTM", 4),
    "Attention": attention,
    "RotaryEmbedding": rotary,
}
