"""Text layers: IR and tuning records, packed with zstd.

Takes: text, or the bytes of a layer.
Gives: one zstd frame that states its content size, or the text.
Invariant: equal text and the same version of zstandard give equal bytes; unpacking never makes more than its limit.

Not imported by `bundle_format` itself: a loader that only runs code should not pay for importing zstandard.
"""

from typing import Final

import zstandard

from bundle_format.errors import BundleError

LEVEL: Final = 15
MAX_TEXT_BYTES: Final = 1 << 30


def pack_text(text: str) -> bytes:
    """One frame; no worker threads, whose number would leave traces in the bytes."""
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, threads=0).compress(text.encode("utf-8"))


def unpack_text(data: bytes | memoryview, limit_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a layer; a damaged frame, a wrong size or text beyond the limit is a `BundleError`."""
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > limit_bytes:
            raise BundleError("TEXT_OVERSIZE", "a text layer does not state its size, or is too large", found=str(size))
        text = zstandard.ZstdDecompressor().decompress(data, max_output_size=limit_bytes, allow_extra_data=False)
        return text.decode("utf-8")
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise BundleError("TEXT_DAMAGED", "a text layer does not unpack", found=str(error)) from error
