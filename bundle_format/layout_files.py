"""Putting a finished layout on disk, all of it or nothing.

Takes: the bytes of `index.json`, the blobs, and which of them must be aligned.
Gives: a tar file or a folder at the path asked for.
Invariant: the target path holds either what it held before or the complete, flushed bundle; on any failure (a full
disk, an interrupt) the temporary file or folder beside it is removed.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.errors import BundleError, StorageError
from bundle_format.store import is_tar_of_bundle
from bundle_format.tar_layout import BLOCK, END, padded, place

Data = bytes | bytearray | memoryview

_WRITE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI image layout in memory; `aligned` blobs begin at a multiple of 64 KiB within a tar."""

    index: bytes
    blobs: Mapping[Digest, Data]
    aligned: frozenset[Digest]


def write_layout(layout: Layout, path: Path, *, directory: bool) -> None:
    """Write a layout; anything the operating system refuses is a `StorageError`."""
    path = path.absolute()
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    try:
        if directory:
            _write_folder(layout, path, partial)
        else:
            _write_tar(layout, path, partial)
        _flush_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(partial)


def occupation(path: Path) -> str | None:
    """Why no bundle may go to a path: anything but a bundle or something empty is somebody's work and stays."""
    try:
        if path.is_dir():
            free = (path / media.LAYOUT_FILE).is_file() or not any(path.iterdir())
            return None if free else "the folder is neither empty nor a bundle"
        if not path.exists():
            return None
        if not path.is_file():
            return "this is no plain file"
        with path.open("rb") as file:
            beginning = file.read(BLOCK)
    except OSError as error:
        return f"what is there cannot be read: {error.strerror}"
    return None if not beginning or is_tar_of_bundle(beginning) else "the file is neither empty nor a bundle"


def _write_tar(layout: Layout, path: Path, partial: Path) -> None:
    if path.is_dir():
        raise BundleError("TARGET_EXISTS", "there is a folder where the bundle file should go", where=str(path))
    _check_free(path)
    with partial.open("xb", buffering=0) as file:
        position = 0
        for name, data, aligned in _files(layout):
            entry = place(name, len(data), position, aligned)
            _write_all(file, entry.header)
            _write_all(file, data)
            _write_all(file, bytes(padded(len(data)) - len(data)))
            position = entry.end
        _write_all(file, END)
        os.fsync(file.fileno())
    partial.replace(path)


def _write_folder(layout: Layout, path: Path, partial: Path) -> None:
    blobs = partial / media.BLOB_FOLDER
    blobs.mkdir(parents=True)
    for name, data, _ in _files(layout):
        with (partial / name).open("xb", buffering=0) as file:
            _write_all(file, data)
            os.fsync(file.fileno())
    for folder in (blobs, blobs.parent, partial):
        _flush_folder(folder)
    if path.is_dir() and any(path.iterdir()):
        _swap_folder(partial, path)
    else:
        partial.rename(path)


def _check_free(path: Path) -> None:
    reason = occupation(path)
    if reason is not None:
        raise BundleError("TARGET_EXISTS", reason, where=str(path), hint="choose another path")


def _swap_folder(new: Path, old: Path) -> None:
    """Replace a folder that holds a bundle."""
    _check_free(old)
    retired = new.with_suffix(".old")
    old.rename(retired)
    try:
        new.rename(old)
    except OSError:
        retired.rename(old)
        raise
    shutil.rmtree(retired)


def _files(layout: Layout) -> Iterator[tuple[str, Data, bool]]:
    """All files in the order of the tar: fixed ones, blobs by digest, then aligned blobs by digest."""
    yield media.LAYOUT_FILE, media.LAYOUT_BYTES, False
    yield media.INDEX_FILE, layout.index, False
    for digest in sorted(layout.blobs.keys() - layout.aligned):
        yield media.BLOB_FOLDER + digest.hex, layout.blobs[digest], False
    for digest in sorted(layout.blobs.keys() & layout.aligned):
        yield media.BLOB_FOLDER + digest.hex, layout.blobs[digest], True


def _write_all(file: BinaryIO, data: Data) -> None:
    """Unbuffered writes may take less than they are given, above all just before a disk is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file.fileno(), rest[:_WRITE_BYTES]) :]


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _remove(partial: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def _unwritable(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            "DISK_FULL",
            "the disk is full, the bundle was not written",
            where=str(path),
            hint="free some space or choose another path; nothing half-written was left behind",
        )
    return StorageError("BUNDLE_UNWRITABLE", "the bundle cannot be written", where=str(path), found=error.strerror)
