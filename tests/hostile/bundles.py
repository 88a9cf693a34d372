"""Damaged and hostile bundles, made from a sound one by seed.

Takes a sound bundle's folder and a seed; gives a mutated bundle. Invariant: the same seed gives the same bytes; where
JSON is changed, the digests above it are made to fit, so that a reader must look at what it says; code is never
replaced under a digest that fits, for then it would be a sound bundle of other code.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tarfile
from pathlib import Path

from bundle_format.canonical import Json, canonical_bytes

_NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 1.5)
_WORDS = ("", "..", "/etc/passwd", "sha256:" + "0" * 64, "x" * 3000, "f32", "\u0000", "__proto__", "f8e4m3")


def mutated(sound: Path, seed: int, folder: Path) -> Path:
    """A hostile bundle in `folder`, as a folder or as a tar."""
    generator = random.Random(seed)
    path = folder / "bundle"
    kind = generator.randrange(4)
    if kind == 0:
        return _damaged_tar(sound, generator, folder)
    shutil.copytree(sound, path)
    if kind == 1:
        _damage_a_file(path, generator)
    elif kind == 2:
        _change_the_tree(path, generator)
    else:
        _change_json(path, generator)
    return path


def _damaged_tar(sound: Path, generator: random.Random, folder: Path) -> Path:
    path = folder / "bundle.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(p for p in sound.rglob("*") if p.is_file()):
            tar.add(file, str(file.relative_to(sound)))
    data = bytearray(path.read_bytes())
    for _ in range(generator.choice((1, 1, 3, 20))):
        # Headers are where a reader of tars goes wrong; they begin at multiples of 512.
        start = generator.randrange(len(data) // 512) * 512 + generator.randrange(300)
        if start < len(data):
            data[start] = generator.choice((0, 255, ord("/"), ord("."), ord("7"), generator.randrange(256)))
    path.write_bytes(data[: generator.randrange(len(data))] if generator.random() < 0.2 else data)
    return path


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def _damage_a_file(path: Path, generator: random.Random) -> None:
    file = generator.choice(_files(path))
    data = bytearray(file.read_bytes())
    kind = generator.randrange(4)
    if kind == 0 or not data:
        file.unlink()
    elif kind == 1:
        file.write_bytes(data[: generator.randrange(len(data))])
    elif kind == 2:
        file.write_bytes(data + b"\0" * generator.choice((1, 4096)))
    else:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        file.write_bytes(data)


def _change_the_tree(path: Path, generator: random.Random) -> None:
    """Links, devices' names, folders where files should be."""
    file = generator.choice(_files(path))
    kind = generator.randrange(4)
    if kind == 0:
        file.unlink()
        file.symlink_to(generator.choice(("/etc/passwd", "/dev/zero", "../oci-layout", str(file))))
    elif kind == 1:
        file.unlink()
        file.mkdir()
    elif kind == 2:
        (path / generator.choice(("extra", "blobs/extra", "blobs/sha256/extra"))).write_bytes(b"x")
    else:
        file.chmod(0)


def _change_json(path: Path, generator: random.Random) -> None:
    """Another value somewhere in the index, a manifest or a config, with all digests above it made to fit."""
    blobs = path / "blobs/sha256"
    texts = {f.name: parsed for f in blobs.iterdir() if (parsed := _parsed(f)) is not None}
    name = generator.choice([*sorted(texts), "index.json"])
    if name == "index.json":
        root = json.loads((path / name).read_bytes())
        (path / name).write_bytes(_written(_changed(root, generator)))
        return
    renamed = {name: _store(blobs, _written(_changed(texts[name], generator)))}
    for _ in range(4):  # config, manifest, index, and the index of the layout
        for owner, value in list(texts.items()):
            text = json.dumps(value)
            fitted = _fitted(text, renamed)
            if fitted != text and owner not in renamed:
                renamed[owner] = _store(blobs, _written(json.loads(fitted)))
    outer = (path / "index.json").read_text(encoding="utf-8")
    (path / "index.json").write_bytes(_written(json.loads(_fitted(outer, renamed))))


def _parsed(file: Path) -> Json | None:
    if file.stat().st_size > 1 << 20:
        return None
    try:
        return json.loads(file.read_bytes())
    except (ValueError, UnicodeDecodeError):
        return None


def _written(value: object) -> bytes:
    try:
        return canonical_bytes(value)  # type: ignore[arg-type]
    except Exception:  # what canonical JSON cannot say, plain JSON may
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode("utf-8", "surrogatepass")


def _store(blobs: Path, data: bytes) -> str:
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return f"{name} {len(data)}"


def _fitted(text: str, renamed: dict[str, str]) -> str:
    """The JSON with digests and sizes of what was renamed."""
    value = json.loads(text)
    _fit(value, renamed)
    return json.dumps(value)


def _fit(value: object, renamed: dict[str, str]) -> None:
    if isinstance(value, dict):
        digest = value.get("digest")
        old = digest.removeprefix("sha256:") if isinstance(digest, str) else None
        if old in renamed:
            name, size = renamed[old].split()
            value["digest"] = f"sha256:{name}"
            if "size" in value:
                value["size"] = int(size)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _fit(part, renamed)


def _changed(value: object, generator: random.Random) -> object:
    """One leaf, key or list changed."""
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = generator.choice(sorted(value))
        kind = generator.random()
        if kind < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.2:
            return {**value, generator.choice(_WORDS): 1}
        return {**value, key: _changed(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.9:
        index = generator.randrange(len(value))
        kind = generator.random()
        if kind < 0.15:
            return value[:index] + value[index + 1 :]
        if kind < 0.3:
            return [*value, value[index]]
        return [*value[:index], _changed(value[index], generator), *value[index + 1 :]]
    return generator.choice((*_NUMBERS, *_WORDS, None, True, [], {}, [[]] * 50))
