"""What a person sees when the machine fails: one message, the documented exit code, nothing half-written."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bundle_format import layout_files, media
from bundle_format.reader import open_bundle
from tessera_build.cli.main import main
from tessera_runtime import loader
from tessera_runtime.cpu.machine import Machine, this_machine
from tests.models.bundles import DIGITS, digits_images

pytestmark = [pytest.mark.cli, pytest.mark.errors]

OLD = Machine(this_machine().system, this_machine().arch, frozenset({"sse2"}))
BUILD = ["build", str(DIGITS / "digits.onnx"), "--target", "x86-64-v2", "--no-verify"]


@pytest.fixture(autouse=True, scope="module")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of these tests' own, so that they compile once and leave the person's alone."""
    with patch.dict(os.environ, {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}):
        yield


def tessera(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, arguments)


def image_file(folder: Path) -> str:
    """`--input` for one image."""
    np.save(folder / "image.npy", digits_images(1))
    return f"image={folder / 'image.npy'}"


@pytest.mark.parametrize("written_before", [0, 30_000])
def test_build_when_the_disk_fills_up_then_exits_7_and_the_old_bundle_stays(
    tmp_path: Path, written_before: int
) -> None:
    out, real, left = tmp_path / "digits.tessera", os.write, [written_before]
    before = media.LAYOUT_FILE.encode().ljust(512, b"\0") + b"what was there before"
    out.write_bytes(before)

    def nearly_full(descriptor: int, data: memoryview) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(descriptor, data[: left[0]])
        left[0] -= done
        return done

    with patch.object(layout_files.os, "write", nearly_full):
        result = tessera(*BUILD, "-o", str(out))
    assert result.exit_code == 7
    assert "error[DISK_FULL]: the disk is full" in result.stderr
    assert str(out) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() == before


def test_build_when_the_kernel_cache_cannot_be_written_then_the_bundle_is_made_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    out = tmp_path / "digits.tessera"
    with patch.dict(os.environ, {"XDG_CACHE_HOME": str(tmp_path / "cache")}):
        result = tessera(*BUILD, "-o", str(out))
    assert result.exit_code == 0, result.output
    assert out.is_file()


def test_run_when_the_outputs_have_no_place_then_exits_7_and_leaves_nothing(
    digits_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.object(np, "savez", full):
        result = tessera("run", str(digits_bundle), "--input", image_file(tmp_path), "--output", str(out))
    assert result.exit_code == 7
    assert "No space left on device" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["image.npy"]


def test_run_when_the_cpu_is_too_old_then_exits_7_and_names_what_each_variant_lacks(
    digits_bundle: Path, tmp_path: Path
) -> None:
    with patch.object(loader, "this_machine", lambda: OLD):
        result = tessera("run", str(digits_bundle), "--input", image_file(tmp_path))
    assert result.exit_code == 7
    assert "error[MACHINE_UNSUITABLE]" in result.stderr
    assert "x86-64-v2: this CPU lacks " in result.stderr
    assert "popcnt" in result.stderr
    assert "tessera build --target" in result.stderr


def place_of(bundle: Path, media_type: str) -> int:
    """The offset within the tar of the middle of the first layer of a type."""
    with open_bundle(bundle) as opened:
        (variant, *_) = (v for v in opened.variants if v.layers(media_type))
        data = bytes(opened.copy(variant.layers(media_type)[0]))
    return bundle.read_bytes().index(data) + len(data) // 2


@pytest.mark.parametrize("media_type", [media.ELF_CODE, media.GRAPH_IR, media.TUNING])
def test_commands_when_one_bit_is_flipped_then_exit_6(digits_bundle: Path, tmp_path: Path, media_type: str) -> None:
    data = bytearray(digits_bundle.read_bytes())
    data[place_of(digits_bundle, media_type)] ^= 4
    damaged = tmp_path / "damaged.tessera"
    damaged.write_bytes(data)
    result = tessera("verify", str(damaged))
    assert (result.exit_code, "error[" in result.stderr) == (6, True)
    assert "Traceback" not in result.output


def test_verify_when_one_bit_of_a_weight_is_flipped_then_exits_6(digits_bundle: Path, tmp_path: Path) -> None:
    data = bytearray(digits_bundle.read_bytes())
    data[place_of(digits_bundle, media.WEIGHTS)] ^= 1
    damaged = tmp_path / "damaged.tessera"
    damaged.write_bytes(data)
    assert tessera("verify", str(damaged)).exit_code == 6


@pytest.mark.parametrize("kept", [0, 100, 1024, 50_000])
def test_commands_when_the_bundle_is_cut_off_then_exit_6(digits_bundle: Path, tmp_path: Path, kept: int) -> None:
    cut = tmp_path / "cut.tessera"
    cut.write_bytes(digits_bundle.read_bytes()[:kept])
    for command in (["inspect", "--digest"], ["run", "--input", image_file(tmp_path)], ["verify"]):
        result = tessera(command[0], str(cut), *command[1:])
        assert (result.exit_code, "error[" in result.stderr) == (6, True), (command, result.output)
