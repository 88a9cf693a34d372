"""Which blob each weight goes into.

Takes: weights in ABI order, as bytes.
Gives: the records for the config and the layers for the manifest.
Invariant: every weight begins at a multiple of 64 bytes; equal content gives equal blobs, whatever the names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.layout_files import Data
from bundle_format.schema import WEIGHT_ALIGNMENT, Weight
from bundle_format.writer import Layer

# A large weight gets a blob of its own, so that variants with the same layout share it. Small ones are put together:
# a blob costs up to 64 KiB of padding in a tar and a file descriptor in a folder.
OWN_BLOB_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class WeightData:
    """One weight before it has a place. `source` is the digest of what it was made from."""

    name: str
    data: Data
    dtype: str
    shape: tuple[int, ...]
    layout: str
    source: Digest


def pack_weights(weights: Sequence[WeightData]) -> tuple[tuple[Weight, ...], tuple[Layer, ...]]:
    """Records in the order given, and layers sorted by digest."""
    pool = _pool_of_small(weights)
    pool_digest = Digest.of(pool.data)
    layers: dict[Digest, Layer] = {pool_digest: Layer(media.WEIGHTS, pool.data)} if pool.data else {}
    records: list[Weight] = []
    for weight in weights:
        size = memoryview(weight.data).nbytes
        if size < OWN_BLOB_BYTES:
            digest, offset = pool_digest, pool.offsets[Digest.of(weight.data)]
        else:
            digest, offset = Digest.of(weight.data), 0
            layers.setdefault(digest, Layer(media.WEIGHTS, weight.data))
        records.append(
            Weight(weight.name, digest, offset, size, weight.dtype, weight.shape, weight.layout, weight.source)
        )
    return tuple(records), tuple(layers[digest] for digest in sorted(layers))


@dataclass(frozen=True, slots=True)
class _Pool:
    data: bytes
    offsets: dict[Digest, int]


def _pool_of_small(weights: Sequence[WeightData]) -> _Pool:
    data, offsets = bytearray(), dict[Digest, int]()
    for weight in weights:
        view = memoryview(weight.data)
        digest = Digest.of(view)
        if view.nbytes < OWN_BLOB_BYTES and digest not in offsets:
            data.extend(bytes(-len(data) % WEIGHT_ALIGNMENT))
            offsets[digest] = len(data)
            data.extend(view.cast("B"))
    if offsets and not data:
        data.extend(bytes(WEIGHT_ALIGNMENT))  # a blob of no bytes is no layer, and each weight lies in one
    return _Pool(bytes(data), offsets)
