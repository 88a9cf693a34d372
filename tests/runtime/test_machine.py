"""What the runtime believes of a machine, read from files that the tests write, and what it chooses from that."""

import os
from pathlib import Path

import pytest

from bundle_format.reader import open_bundle
from bundle_format.writer import write_bundle
from tessera_runtime.choice import choose_variant
from tessera_runtime.cpu.machine import Machine, cpu_features, default_threads, normal_feature
from tests.runtime.sample import sample_variant

CPUINFO_X86 = """processor\t: 0
model name\t: A CPU
flags\t\t: sse sse2 pni sse4_1 sse4_2 abm bmi1 bmi2 avx avx2 fma avx512f avx512_vnni avx512_bf16 amx_tile lahf_lm
bogomips\t: 1

processor\t: 1
flags\t\t: nothing
"""
CPUINFO_ARM = "processor\t: 0\nFeatures\t: fp asimd aes crc32 atomics asimddp sve\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "present"),
    [
        (
            CPUINFO_X86,
            ["sse3", "sse4.2", "lzcnt", "bmi", "avx2", "avx512f", "avx512vnni", "avx512bf16", "amx-tile", "sahf"],
        ),
        (CPUINFO_ARM, ["neon", "crc", "lse", "dotprod", "sve"]),
    ],
)
def test_features_when_linux_names_them_then_targets_find_them(tmp_path: Path, text: str, present: list[str]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    features = cpu_features(str(tmp_path / "cpuinfo"))
    assert [name for name in present if normal_feature(name) not in features] == []
    assert not features & {"nothing", "avx9000", "bogomips"}


@pytest.mark.unit
def test_features_when_cpuinfo_cannot_be_read_then_none_are_claimed(tmp_path: Path) -> None:
    assert cpu_features(str(tmp_path / "missing")) == frozenset()


def put(root: Path, name: str, text: str) -> None:
    """Write one file of a pretended `/proc` or `/sys`."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage\n"}, 8),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 1",
                "sys/fs/cgroup/a/cpu.max": "250000 100000",
            },
            2,
        ),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_threads_when_affinity_and_quota_differ_then_the_smaller_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        put(tmp_path, name, text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert default_threads(str(tmp_path)) == expected


@pytest.mark.unit
@pytest.mark.parametrize(
    ("features", "chosen"), [("", "v2"), ("avx2 fma", "v3"), ("avx2 fma avx512f", "v4"), ("avx512f", "v2")]
)
def test_variant_when_several_fit_then_the_one_with_most_features_is_chosen(
    tmp_path: Path, features: str, chosen: str
) -> None:
    needs = {"v2": (), "v3": ("avx2", "fma"), "v4": ("avx2", "fma", "avx512f")}
    write_bundle(tmp_path / "m", [sample_variant(b"", name, need) for name, need in needs.items()])
    with open_bundle(tmp_path / "m") as bundle:
        choice = choose_variant(bundle.variants, Machine("Linux", "x86_64", frozenset(features.split())))
    assert choice.variant.config.target.name == chosen
    assert len(choice.reasons) == 3
    assert sum("chosen" in reason for reason in choice.reasons) == 1
