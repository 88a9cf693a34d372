"""Compiled objects kept on disk, addressed by the content that made them.

Takes: a directory, a size limit, keys made by `object_key`.
Gives: `ObjectCache` with `get`, `put` and `prune`; `default_cache` for the user's own directory.
Invariant: a wrong answer is impossible, a missing one always allowed: an entry is written under another name and
renamed, its checksum is tested on reading, and an entry that fails it counts as absent. A cache that cannot be written
is no error.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tessera_build.backends.llvm.objects import CodegenOptions, llvm_version

SCHEMA_VERSION = 2
DEFAULT_LIMIT_BYTES = 2 * 1024**3

_MAGIC = b"tessera-object-1"
_DIGEST_BYTES = hashlib.sha256().digest_size


def object_key(ir_text: str, options: CodegenOptions) -> str:
    """The SHA-256 of everything that the object depends on: text, options, LLVM's version, form of the entry."""
    facts = {"schema": SCHEMA_VERSION, "llvm": llvm_version(), "options": asdict(options)}
    header = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(b"%d:%b%b" % (len(header), header, ir_text.encode())).hexdigest()


@dataclass(frozen=True, slots=True)
class ObjectCache:
    """A directory of objects. Processes may share it: each entry is complete or absent at any moment."""

    directory: Path
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    def get(self, key: str) -> bytes | None:
        """The object stored under `key`, or None; a hit makes the entry the youngest."""
        path = self._path(key)
        try:
            entry = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = entry[len(_MAGIC) + _DIGEST_BYTES :]
        return content if entry == _sealed(content) else None

    def put(self, key: str, content: bytes) -> bool:
        """Store an object; False when the directory cannot be written."""
        path = self._path(key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_sealed(content))
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError:
            return False
        return True

    def prune(self) -> int:
        """Remove the entries used longest ago until the rest fits; returns the bytes removed.

        Files that an interrupted `put` left behind are entries like any other here, so they go in their turn.
        """
        entries: list[tuple[int, str, int]] = []
        for path in self.directory.glob("??/*"):
            try:
                facts = path.stat()
            except OSError:  # another process removed it
                continue
            entries.append((facts.st_mtime_ns, str(path), facts.st_size))
        excess = sum(size for _, _, size in entries) - self.limit_bytes
        removed = 0
        for _, name, size in sorted(entries):
            if removed >= excess:
                break
            Path(name).unlink(missing_ok=True)
            removed += size
        return removed

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / key[2:]


def default_cache(environment: Mapping[str, str]) -> ObjectCache:
    """The user's cache: `TESSERA_CACHE`, else `tessera/kernels` below `XDG_CACHE_HOME`, else below `~/.cache`."""
    if chosen := environment.get("TESSERA_CACHE"):
        return ObjectCache(Path(chosen))
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return ObjectCache(Path(base) / "tessera" / "kernels")


def _sealed(content: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(content).digest() + content
