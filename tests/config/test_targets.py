"""Targets: the standard files, the choice that `native` makes, and machines that say nothing."""

from pathlib import Path

import pytest

from bundle_format.errors import TesseraError
from tessera_build.config import ConfigError, list_targets, load_target
from tessera_build.config.machine import Machine, read_machine
from tessera_build.config.resources import resource
from tessera_build.driver.machine import machine_of as machine_facts

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


def machine_of(level: str, *extensions: str) -> Machine:
    flags = frozenset((*load_target(level).features, *extensions))
    return Machine("x86_64", flags, ((1, 49152), (2, 2097152)))


@pytest.mark.unit
def test_list_targets_when_asked_then_has_the_levels_and_native() -> None:
    assert set(list_targets()) >= {*LEVELS, "native"}


@pytest.mark.unit
@pytest.mark.parametrize("name", LEVELS)
def test_target_file_when_loaded_then_bears_its_own_name(name: str) -> None:
    target = load_target(name)
    assert (target.name, target.llvm_cpu, target.arch, target.kind) == (name, name, "x86_64", "cpu")


@pytest.mark.unit
@pytest.mark.parametrize("base", ["x86-64-v3", "x86-64-v4"])
def test_target_file_when_it_names_a_base_then_has_its_features_and_more(base: str) -> None:
    target, plain = load_target(f"{base}-vnni"), load_target(base)
    assert (target.name, target.llvm_cpu, target.vector_bits) == (f"{base}-vnni", base, plain.vector_bits)
    assert set(target.features) > set(plain.features)
    assert machine_facts(target).byte_products
    assert not machine_facts(plain).byte_products


@pytest.mark.unit
def test_native_when_the_machine_has_narrow_vnni_only_then_wide_registers_do_without() -> None:
    assert not machine_facts(load_target("native", machine_of("x86-64-v4", "avx_vnni"))).byte_products
    assert machine_facts(load_target("native", machine_of("x86-64-v3", "avx_vnni"))).byte_products
    assert machine_facts(load_target("native", machine_of("x86-64-v4", "avx512_vnni"))).byte_products


@pytest.mark.unit
def test_levels_when_compared_then_each_needs_all_features_of_the_one_below() -> None:
    features = [set(load_target(name).features) for name in LEVELS]
    assert features[0] < features[1] < features[2]


@pytest.mark.unit
@pytest.mark.parametrize("level", LEVELS)
def test_native_when_the_machine_is_of_a_level_then_takes_that_level_and_its_caches(level: str) -> None:
    base, native = load_target(level), load_target("native", machine_of(level))
    assert (native.name, native.llvm_cpu, native.features) == ("native", level, base.features)
    assert native.vector_bits == base.vector_bits
    assert native.cache_bytes.l1 == 49152
    assert native.cache_bytes.l2 == 2097152
    assert native.cache_bytes.l3 == base.cache_bytes.l3  # the machine does not report one


@pytest.mark.unit
def test_native_when_the_machine_has_an_extension_then_asks_for_it_on_both_sides() -> None:
    native = load_target("native", machine_of("x86-64-v4", "avx512_bf16"))
    assert "avx512_bf16" in native.features
    assert "+avx512bf16" in native.llvm_features


def test_native_when_a_wide_machine_lacks_the_flag_then_few_rows_do_not_ask_ahead() -> None:
    for level, flags, asks in (("x86-64-v4", (), False), ("x86-64-v4", ("avx_vnni",), True), ("x86-64-v3", (), True)):
        target = load_target("native", machine_of(level, *flags))
        assert target.asks_ahead is asks
        assert machine_facts(target).asks_ahead is asks
    assert all(load_target(level).asks_ahead for level in LEVELS)


def test_native_when_a_wide_machine_has_adders_of_their_own_then_says_so() -> None:
    for level, flags, apart in (
        ("x86-64-v4", ("sse4a",), True),
        ("x86-64-v4", ("sse4a", "avx_vnni"), False),
        ("x86-64-v4", (), False),
        ("x86-64-v3", ("sse4a",), False),
    ):
        target = load_target("native", machine_of(level, *flags))
        assert target.adds_apart is apart
        assert machine_facts(target).adds_apart is apart
    assert not any(load_target(level).adds_apart for level in LEVELS)


@pytest.mark.errors
@pytest.mark.parametrize(
    "machine", [Machine("x86_64", frozenset({"sse2"}), ()), Machine("aarch64", frozenset({"neon"}), ())]
)
def test_native_when_the_machine_runs_no_level_then_is_refused_with_a_remedy(machine: Machine) -> None:
    with pytest.raises(TesseraError) as caught:
        load_target("native", machine)
    assert caught.value.code == "MACHINE_TOO_OLD"
    assert caught.value.exit_code == 7
    assert "tessera targets" in (caught.value.hint or "")


@pytest.mark.errors
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("vector_bits: 512", "vector_bits: 500", "no such vector width"),
        ('"-prefer', '"prefer', "neither asks for a feature"),
        ("kind: cpu", "kind: gpu", "'kind' has a wrong value"),
        ("  - fma\n", "  - fma\n  - fma\n", "'features' has a wrong value"),
        ("prefer_fma: true", "prefer_fma: 1", "'prefer_fma' has a wrong value"),
        ("l2: 1048576", "l_2: 1048576", "cache_bytes.l"),
    ],
)
def test_target_file_when_a_value_does_not_fit_then_is_refused(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    text = resource("configs/targets/x86-64-v4.yaml").read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_target(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.unit
def test_read_machine_when_cores_differ_then_keeps_what_all_have(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("flags\t\t: fma avx2\n\nflags\t\t: avx2 sse2\n")
    for index, (level, kind, size) in enumerate(
        (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"))
    ):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(value + "\n")
    assert read_machine(tmp_path, "x86_64") == Machine("x86_64", frozenset({"avx2"}), ((1, 49152), (2, 2097152)))


@pytest.mark.errors
@pytest.mark.parametrize("cpuinfo", [None, "processor : 0\n"])
def test_read_machine_when_the_system_is_silent_then_is_refused(tmp_path: Path, cpuinfo: str | None) -> None:
    (tmp_path / "proc").mkdir()
    if cpuinfo is not None:
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    with pytest.raises(TesseraError, match="does not tell what its processor can do"):
        read_machine(tmp_path, "x86_64")
