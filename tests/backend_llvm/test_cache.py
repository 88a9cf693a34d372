"""The object cache: keys, damage, pruning, and directories that cannot be used."""

import os
from pathlib import Path

from tessera_build.backends.llvm.cache import ObjectCache, default_cache, object_key
from tessera_build.backends.llvm.objects import CodegenOptions
from tests.backend_llvm.harness import AARCH64, X86_64

KEY = object_key("define void @f() { ret void }", X86_64)


def entry(cache: ObjectCache, key: str) -> Path:
    return next(path for path in cache.directory.glob("??/*") if path.parent.name + path.name == key)


def test_cache_when_an_object_is_stored_then_it_is_found(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "new" / "folder")
    assert cache.get(KEY) is None
    assert cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"
    assert [path.name for path in entry(cache, KEY).parent.iterdir()] == [KEY[2:]]


def test_cache_when_any_byte_of_an_entry_changes_then_it_is_absent_and_may_be_rewritten(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.put(KEY, b"code")
    path = entry(cache, KEY)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert cache.get(KEY) is None
        path.write_bytes(whole[:position])
        assert cache.get(KEY) is None
    assert cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"


def test_key_when_anything_differs_then_it_differs() -> None:
    options = [
        X86_64,
        AARCH64,
        CodegenOptions(X86_64.triple, "x86-64-v3"),
        CodegenOptions(X86_64.triple, "x86-64", ("+avx2",)),
        CodegenOptions(X86_64.triple, "x86-64", optimization=3),
    ]
    keys = {object_key(text, option) for text in ("a", "b") for option in options}
    assert len(keys) == 2 * len(options)


def test_prune_when_over_the_limit_then_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, limit_bytes=3 * 1048)  # an entry of 1000 bytes takes 1048
    keys = [object_key(str(number), X86_64) for number in range(5)]
    for age, key in enumerate(keys):
        cache.put(key, bytes(1000))
        os.utime(entry(cache, key), (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # now the youngest
    assert cache.prune() == 2 * 1048
    assert [cache.get(key) is not None for key in keys] == [True, False, False, True, True]
    assert cache.prune() == 0


def test_cache_when_the_directory_cannot_be_made_then_it_is_only_slower(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ObjectCache(tmp_path / "file" / "below")
    assert not cache.put(KEY, b"code")
    assert cache.get(KEY) is None
    assert cache.prune() == 0


def test_default_cache_when_the_environment_chooses_then_it_is_there(tmp_path: Path) -> None:
    assert default_cache({"TESSERA_CACHE": "/a", "XDG_CACHE_HOME": "/b"}).directory == Path("/a")
    assert default_cache({"XDG_CACHE_HOME": "/b"}).directory == Path("/b/tessera/kernels")
    assert default_cache({}).directory == Path.home() / ".cache/tessera/kernels"
