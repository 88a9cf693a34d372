"""The digest of a constant that is a parameter: made of its numbers and its name, for equal numbers are one constant.

Takes an array and a name; gives a digest. Invariant: two parameters of one model have two digests, whatever their
numbers are; two biases that begin as zeros would otherwise be one value, and each would have the gradient of both.
"""

from __future__ import annotations

import hashlib

from tessera_build.ir.graph.builder import digest_of
from tessera_build.ir.graph.nodes import Array


def owned_digest(array: Array, name: str) -> str:
    """`sha256:<hex>` of the array's digest and the name."""
    return "sha256:" + hashlib.sha256(f"{digest_of(array)} {name}".encode()).hexdigest()
