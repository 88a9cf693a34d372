"""Gives every piece of the shared object its address and its place in the file.

Takes: pieces in order, each with the output section and the segment it belongs to.
Gives: `Layout`: places, and the extents of output sections and of segments.
Invariant: the file is dense, and within segment n an address is the file offset plus n pages; so no two segments share
a page of memory although they may share a page of the file (the form lld uses; no padding to pages is stored).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.backends.llvm.linker.elf import aligned
from tessera_build.backends.llvm.linker.errors import LinkError

Key = str | tuple[int, int]
READ_SEGMENT, CODE_SEGMENT, WRITE_SEGMENT = 0, 1, 2
_SEGMENT_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated table (key: its name) or an input section (key: object and section index)."""

    key: Key
    output: str
    segment: int
    alignment: int
    size: int
    in_file: bool = True


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of the file and of memory. `file_bytes` < `memory_bytes` where the tail is zero-initialised."""

    offset: int
    address: int
    file_bytes: int
    memory_bytes: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Layout:
    """`pieces` by key, `sections` by output name in file order, `segments` by number (absent when empty)."""

    pieces: dict[Key, Extent]
    sections: dict[str, Extent]
    segments: dict[int, Extent]
    file_bytes: int


def lay_out(pieces: Sequence[Piece], page_bytes: int) -> Layout:
    """Place pieces in the given order; all pieces that are not in the file come last."""
    placed: dict[Key, Extent] = {}
    sections: dict[str, list[Extent]] = {}
    segments: dict[int, list[Extent]] = {}
    cursor, segment, file_bytes = 0, READ_SEGMENT, 0
    for piece in pieces:
        if piece.alignment > page_bytes:
            raise LinkError("an alignment is larger than a page", where=piece.output, found=str(piece.alignment))
        if piece.segment != segment:
            cursor, segment = aligned(cursor, _SEGMENT_ALIGNMENT), piece.segment
        cursor = aligned(cursor, piece.alignment)
        stored = piece.size if piece.in_file else 0
        extent = Extent(cursor, cursor + segment * page_bytes, stored, piece.size, piece.alignment)
        cursor += piece.size
        file_bytes = cursor if piece.in_file else file_bytes
        placed[piece.key] = extent
        sections.setdefault(piece.output, []).append(extent)
        segments.setdefault(segment, []).append(extent)
    return Layout(
        placed,
        {name: _union(extents) for name, extents in sections.items()},
        {number: _union(extents) for number, extents in segments.items()},
        file_bytes,
    )


def _union(extents: Sequence[Extent]) -> Extent:
    first, last = extents[0], extents[-1]
    stored = max(extent.offset + extent.file_bytes for extent in extents if extent.file_bytes or extent is first)
    return Extent(
        offset=first.offset,
        address=first.address,
        file_bytes=stored - first.offset,
        memory_bytes=last.address + last.memory_bytes - first.address,
        alignment=max(extent.alignment for extent in extents),
    )
