"""The contract between the compiler and the runtime: how a bundle is written and read (SPEC.md).

Takes: variants (a config, code, weights, IR) and proofs; or the path of a bundle.
Gives: one tar file or folder, an OCI image layout, with an identity digest; or its checked contents.
Invariant: this package needs the standard library only; `packed_text` alone adds zstandard.
"""

from bundle_format.digest import Digest
from bundle_format.errors import BundleError, TesseraError
from bundle_format.reader import Bundle, open_bundle
from bundle_format.writer import Attachment, Layer, Variant, attach, copy_bundle, write_bundle

__all__ = [
    "Attachment",
    "Bundle",
    "BundleError",
    "Digest",
    "Layer",
    "TesseraError",
    "Variant",
    "attach",
    "copy_bundle",
    "open_bundle",
    "write_bundle",
]
