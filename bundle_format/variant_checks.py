"""What must hold between a variant's config and its layers.

Takes: a `Config` and the `Manifest` that refers to it.
Gives: nothing, or a `BundleError`.
Invariant: after the check, every weight lies within a weights layer of its own variant and a CPU variant has one code.
"""

from collections import Counter

from bundle_format import media
from bundle_format.errors import BundleError
from bundle_format.manifest import Manifest
from bundle_format.schema import Config

CPU_KIND = "cpu"


def check_variant(config: Config, manifest: Manifest) -> None:
    """Compare what the config says with the layers that are there."""
    if manifest.config.media_type != media.CONFIG:
        raise BundleError("MEDIA_TYPE", "a variant's config has another media type", found=manifest.config.media_type)
    count = Counter(layer.media_type for layer in manifest.layers)
    unknown = sorted(count.keys() - media.LAYERS)
    if unknown:
        raise BundleError("MEDIA_TYPE", "a layer has a media type that this reader does not know", found=unknown[0])
    if config.target.kind == CPU_KIND and count[media.ELF_CODE] != 1:
        raise BundleError(
            "CODE_MISSING", "a CPU variant needs exactly one layer of code", found=str(count[media.ELF_CODE])
        )
    sizes = {layer.digest: layer.size for layer in manifest.layers if layer.media_type == media.WEIGHTS}
    for index, weight in enumerate(config.weights):
        if weight.offset + weight.bytes > sizes.get(weight.digest, -1):
            raise BundleError(
                "WEIGHT_OUTSIDE",
                f"the weight {weight.name!r} does not lie within a weights layer of its variant",
                where=f"$.weights[{index}]",
                expected=f"at most {sizes.get(weight.digest, 0)} bytes",
                found=f"{weight.bytes} bytes from {weight.offset}",
            )
