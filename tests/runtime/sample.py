"""The bundle around the hand-written variant of `model.c`.

Takes: the compiled shared object.
Gives: its config, its layers and its variants, for tests of the runtime and of hosts in other languages.
Invariant: the signature here is the one that `model.c` describes.
"""

import numpy as np

from bundle_format import Digest, media
from bundle_format.abi import header_bytes
from bundle_format.dims import parse_dim
from bundle_format.schema import Config, DimRange, Entry, Guard, StateAlias, Target, Tool, Value
from bundle_format.weights import WeightData, pack_weights
from bundle_format.writer import Layer, Variant

SCALE = np.array([2.0, 3.0, 4.0], np.float32)
SHIFT = np.array([0.5, -0.5, 1.5], np.float32)
ROWS = parse_dim("N")
DIMS = (DimRange("N", 1, 2000),)
X = Value("x", "f32", (ROWS, 3))
ENTRIES = (
    Entry("main", (X,), (Value("y", "f32", (ROWS, 3)), Value("last", "i64", (1,))), DIMS),
    Entry(
        "step",
        (Value("x", "f32", (3,)), Value("s", "f32", (3,))),
        (Value("y", "f32", (3,)), Value("t", "f32", (3,))),
        states=(StateAlias("s", "t"),),
    ),
    Entry("spin", (X,), (Value("c", "f64", (1,)),), DIMS),
    Entry("bits", (Value("p", "bf16", (ROWS,)),), (Value("o", "bf16", (ROWS,)),), DIMS),
    Entry("wait", (Value("x", "f32", (1,)),), (Value("w", "f32", (1,)),)),
)
WEIGHTS, WEIGHT_LAYERS = pack_weights(
    [
        WeightData("scale", SCALE.tobytes(), "f32", (3,), "dense", Digest.of(b"scale")),
        WeightData("shift", SHIFT.tobytes(), "f32", (3,), "dense", Digest.of(b"shift")),
    ]
)


def sample_config(name: str, features: tuple[str, ...], arch: str) -> Config:
    """A config for one target."""
    return Config(
        producer=Tool("tessera", "0.0"),
        target=Target(name, "cpu", arch, features),
        entries=ENTRIES,
        weights=WEIGHTS,
        nodes=("scale", "gather_rows"),
        guards=(Guard(ROWS, "<=", parse_dim("1000"), "at most 1000 rows at once"),),
    )


def sample_variant(code: bytes, name: str = "plain", features: tuple[str, ...] = (), arch: str = "x86_64") -> Variant:
    """A variant that runs the given code."""
    layers = [Layer(media.ELF_CODE, code), Layer(media.C_HEADER, header_bytes()), *WEIGHT_LAYERS]
    return Variant(sample_config(name, features, arch), layers)


def without_entry(variant: Variant) -> Variant:
    """A variant whose config knows fewer entries than its code."""
    return Variant(variant.config._replace(entries=variant.config.entries[:1]), variant.layers)


def without_last_output(variant: Variant) -> Variant:
    """A variant whose config knows fewer outputs of the first entry than its code writes."""
    first, *rest = variant.config.entries
    return Variant(variant.config._replace(entries=(first._replace(outputs=first.outputs[:1]), *rest)), variant.layers)
