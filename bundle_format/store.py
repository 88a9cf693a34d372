"""Where the bytes of a bundle lie: one tar file or one folder, both mapped, never copied.

Takes: a path.
Gives: a `Store`: its files by name, as read-only views of mapped memory.
Invariant: a tar is accepted only when every byte outside its files' data is the byte that the writer would have put
there; a folder is read without following symbolic links. Contents of blobs are not judged here.
"""

# Importing pathlib takes 3.5 ms of the 40 that importing the runtime may take.
# ruff: noqa: PTH112, PTH118
import errno
import mmap
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Final, final

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.tar_layout import ALIGNMENT, BLOCK, END, MAX_PAX_BYTES, entry_header, octal_size, padded, pax_size

MAX_FILES: Final = 100_000


class Store(ABC):
    """The files of an OCI image layout."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._offsets: dict[str, int] = {}  # of files that do not begin their mapping

    @abstractmethod
    def view(self, name: str) -> memoryview:
        """The bytes of a file; one that is missing is a `BundleError`."""

    @abstractmethod
    def blobs(self) -> Collection[Digest]:
        """The names of all blobs, sorted."""

    @abstractmethod
    def close(self) -> None:
        """Forget the mappings; views handed out before stay valid."""

    def blob(self, digest: Digest) -> memoryview:
        """The bytes of a blob, not yet compared with its digest."""
        return self.view(media.BLOB_FOLDER + digest.hex)

    def is_aligned(self, digest: Digest) -> bool:
        """Whether a blob begins at a multiple of 64 KiB of the file that is mapped."""
        return self._offsets.get(media.BLOB_FOLDER + digest.hex, 0) % ALIGNMENT == 0

    def missing(self, name: str) -> BundleError:
        """The error of a file that is not there."""
        return BundleError("BLOB_MISSING", "the bundle lacks a file that it refers to", where=self.path, found=name)


def open_store(path: str) -> Store:
    """Open a tar or a folder, whichever lies at `path`."""
    try:
        return FolderStore(path) if os.path.isdir(path) else TarStore(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> BundleError:
    """The error of a file that the operating system will not give."""
    if error.errno == errno.ENOENT:
        return BundleError("BUNDLE_NOT_FOUND", "there is no bundle at this path", where=path)
    return BundleError("BUNDLE_UNREADABLE", "the bundle cannot be read", where=path, found=error.strerror)


def is_tar_of_bundle(beginning: bytes) -> bool:
    """Whether a file that begins so may be a bundle: the writer puts `oci-layout` first."""
    return beginning.startswith(media.LAYOUT_FILE.encode() + b"\0")


@final
class TarStore(Store):
    """One uncompressed tar, mapped whole."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._view = _map_file(path, os.O_CLOEXEC | os.O_NONBLOCK)
        self._files: dict[str, memoryview] = {}
        try:
            self._walk()
        except BundleError as error:
            error.where = error.where or path
            if not is_tar_of_bundle(bytes(self._view[:BLOCK])):
                error.hint = "the file does not begin as a bundle does: is it the right one?"
            raise

    def view(self, name: str) -> memoryview:
        """See `Store`."""
        try:
            return self._files[name]
        except KeyError:
            raise self.missing(name) from None

    def blobs(self) -> Collection[Digest]:
        """See `Store`."""
        names = (name for name in self._files if name.startswith(media.BLOB_FOLDER))
        return sorted(Digest(name.removeprefix(media.BLOB_FOLDER)) for name in names)

    def close(self) -> None:
        """See `Store`."""
        self._files = {}
        self._view = memoryview(b"")

    def _walk(self) -> None:
        """Read every header, comparing it with the one that the writer puts there."""
        position, view = 0, self._view
        while bytes(view[position : position + BLOCK]) != END[:BLOCK]:
            name, size, offset = self._entry(position)
            end = offset + padded(size)
            if end > len(view):
                raise BundleError("TAR_TRUNCATED", "the bundle ends in the middle of a file", found=name)
            if any(view[offset + size : end]):
                raise BundleError("TAR_HEADER", "the padding after a file is not zero", found=name)
            if name in self._files or len(self._files) >= MAX_FILES:
                raise BundleError("TAR_DUPLICATE", "a file occurs twice, or there are too many", found=name)
            self._files[name] = view[offset : offset + size]
            self._offsets[name] = offset
            position = end
        if len(view) - position != len(END) or bytes(view[position:]) != END:
            raise BundleError("TAR_TRUNCATED", "the bundle does not end where its last file ends")

    def _entry(self, position: int) -> tuple[str, int, int]:
        """Name, size and data offset of the entry whose headers begin at `position`."""
        header, size, pax_bytes, long_size = self._block(position), 0, 0, None
        if header[156:157] == b"x":
            pax_bytes = octal_size(header)
            if not 0 < pax_bytes <= MAX_PAX_BYTES or pax_bytes % BLOCK:
                raise BundleError("TAR_HEADER", "a pax header has a length that the writer never uses")
            long_size = pax_size(bytes(self._view[position + BLOCK : position + BLOCK + 64]))
            header = self._block(position + BLOCK + pax_bytes)
        size = octal_size(header) if long_size is None else long_size
        name = str(header[:100].rstrip(b"\0"), "ascii", "replace")
        if not _is_known(name):
            raise BundleError("TAR_NAME", "a file has a name that no bundle contains", found=repr(name))
        expected = entry_header(name, size, pax_bytes)
        if bytes(self._view[position : position + len(expected)]) != expected:
            raise BundleError(
                "TAR_HEADER",
                "a tar header differs from the one that the writer puts there",
                found=name,
                hint="a bundle that was unpacked and packed again with tar can be opened as a folder",
            )
        return name, size, position + len(expected)

    def _block(self, position: int) -> bytes:
        block = bytes(self._view[position : position + BLOCK])
        if len(block) < BLOCK:
            raise BundleError("TAR_TRUNCATED", "the bundle ends in the middle of a header")
        return block


@final
class FolderStore(Store):
    """A folder, its files mapped one by one when they are asked for."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._mapped: dict[str, memoryview] = {}
        for folder in (os.path.join(path, "blobs"), os.path.join(path, "blobs", "sha256")):
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise BundleError("PATH_REFUSED", "a folder of the bundle is not a plain folder", where=folder)

    def view(self, name: str) -> memoryview:
        """See `Store`."""
        found = self._mapped.get(name)
        if found is None:
            path = os.path.join(self.path, name)
            try:
                found = self._mapped[name] = _map_file(path, os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                raise self.missing(name) from None
            except OSError as error:
                raise unreadable(path, error) from error
        return found

    def blobs(self) -> Collection[Digest]:
        """See `Store`."""
        names = [entry.name for entry in os.scandir(os.path.join(self.path, media.BLOB_FOLDER))]
        if len(names) > MAX_FILES:
            raise BundleError("BLOB_COUNT", "the bundle has too many blobs", where=self.path)
        return sorted(Digest(name) for name in names)

    def close(self) -> None:
        """See `Store`."""
        self._mapped = {}


def _is_known(name: str) -> bool:
    if name in (media.LAYOUT_FILE, media.INDEX_FILE):
        return True
    digits = name.removeprefix(media.BLOB_FOLDER)
    return digits != name and len(digits) == 64 and not digits.strip("0123456789abcdef")


def _map_file(path: str, flags: int) -> memoryview:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError("PATH_REFUSED", "a file of the bundle is not a plain file", where=path)
        if status.st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
