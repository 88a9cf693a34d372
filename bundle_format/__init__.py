"""The contract between the compiler and the runtime: how a bundle is written and read (SPEC.md).

    from bundle_format.writer import Attachment, Layer, Variant, attach, copy_bundle, write_bundle
    from bundle_format.reader import Bundle, open_bundle

Takes: variants (a config, code, weights, IR) and proofs; or the path of a bundle.
Gives: one tar file or folder, an OCI image layout, with an identity digest; or its checked contents.
Invariant: needs the standard library only (`packed_text` alone adds zstandard). Reader and writer are imported from
their own modules: everybody imports the errors from here, and a serving process should not pay for the writer.
"""

from bundle_format.digest import Digest
from bundle_format.errors import BundleError, TesseraError

__all__ = ["BundleError", "Digest", "TesseraError"]
