"""A bundle opened for people: its graph, its proofs and its kernels, without the model that it was made from.

Takes: an open bundle and one of its variants.
Gives: the graph module (without the weights' arrays), inputs that fit it, the attached proofs.
Invariant: nothing here trusts more than what the bundle's digests cover.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bundle_format import media
from bundle_format.errors import BundleError
from bundle_format.packed_text import unpack_text
from bundle_format.reader import Bundle, VariantRecord
from tessera_build.config import ConfigError
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.text import parse_module
from tessera_build.verify.inputs import Sizes, choose_sizes, why_none
from tessera_build.verify.proof import Proof, parse_proof

LEVELS: Mapping[str, str] = {
    "graph": media.GRAPH_IR,
    "schedule": media.SCHEDULE_IR,
    "tile": media.TILE_IR,
    "target": media.TARGET_IR,
}


def level_text(bundle: Bundle, variant: VariantRecord, level: str) -> str:
    """The text of one level of IR; a `BundleError` where the bundle was built without it."""
    layers = variant.layers(LEVELS[level])
    if not layers:
        raise BundleError(
            "LEVEL_ABSENT",
            f"the bundle holds no {level} IR for {variant.config.target.name}",
            expected=f"a bundle whose build options list `{level}` under `levels`",
            hint="build it again with --config and such a file; configs/build/default.yaml shows the form",
        )
    return unpack_text(bundle.read(layers[0]))


def graph_of(bundle: Bundle, variant: VariantRecord) -> Module:
    """The graph that was lowered; its constants are empty, for they lie in the bundle in packed form only."""
    nothing: defaultdict[str, Array] = defaultdict(lambda: np.empty(0, np.float32))
    return parse_module(level_text(bundle, variant, "graph"), nothing)


def proofs_of(bundle: Bundle) -> dict[str, Proof]:
    """The attached proofs by target."""
    targets = {variant.descriptor.digest: variant.config.target.name for variant in bundle.variants}
    found: dict[str, Proof] = {}
    for attachment in bundle.attachments:
        if attachment.artifact_type == media.PROOF and attachment.subject in targets:
            found[targets[attachment.subject]] = parse_proof(bundle.read(attachment.blobs[0]))
    return found


def variant_named(bundle: Bundle, target: str | None) -> VariantRecord:
    """The variant of a target; without a name, the one with the most features."""
    variants = {variant.config.target.name: variant for variant in bundle.variants}
    if target is None:
        return max(bundle.variants, key=lambda v: (len(v.config.target.features), v.config.target.name))
    if target not in variants:
        raise ConfigError(
            "TARGET_ABSENT",
            "the bundle has no variant for this target",
            expected=", ".join(sorted(variants)),
            found=target,
        )
    return variants[target]


def requested_sizes(module: Module, requested: Mapping[str, int]) -> Sizes:
    """The sizes asked for; the rest 1 where the model allows that, else the smallest that verification would use."""
    unknown = sorted(requested.keys() - module.dims.keys())
    if unknown:
        raise ConfigError(
            "DIM_UNKNOWN",
            f"the model has no dynamic dim {unknown[0]!r}",
            expected=", ".join(sorted(module.dims)) or "no dim: all shapes are static",
        )
    fixed = {name: (size, size) for name, size in requested.items()}
    ones = {name: (1, 1) for name in module.dims if name not in fixed}
    for bounds in (fixed | ones, fixed):
        sizes = choose_sizes(replace(module, dims=dict(module.dims) | bounds))
        if sizes:
            return sizes[0]
    why = why_none(replace(module, dims=dict(module.dims) | fixed))
    raise ConfigError("SIZES_NOT_FOUND", "the model cannot run with these sizes", expected=why.asked, found=why.ranges)
