"""From the path of a bundle to a model that runs.

Takes: a path, a number of threads, how much to verify.
Gives: a `Model`.
Invariant: every byte of code that becomes executable has been compared with its digest; weights are mapped, and
neither read nor copied unless `verify` is `"full"`, so the time of loading does not depend on their size.
"""

import ctypes
import os
import time
from typing import Literal, SupportsIndex, cast

import numpy as np

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.reader import Bundle, VariantRecord, open_bundle
from bundle_format.schema import ABI_VERSION, Config
from tessera_runtime.choice import choose_variant
from tessera_runtime.cpu.frame import Program, WeightTable
from tessera_runtime.cpu.image import CodeImage
from tessera_runtime.cpu.machine import default_threads, this_machine
from tessera_runtime.cpu.pool import PROCESS_POOLS
from tessera_runtime.errors import RunError
from tessera_runtime.model import Model
from tessera_runtime.observe import Observer, Reporter

MAX_THREADS = 1024


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    verify: Literal["code", "full"] = "code",
    observers: tuple[Observer, ...] = (),
) -> Model:
    """Load a bundle (a file or a folder) and choose the best variant for this machine.

    `threads` None takes the CPUs that affinity and cgroup quota leave to the process. `verify="code"` compares
    manifests, configs, IR and code with their digests, `"full"` the weights and attachments too. `observers` are told
    of this load and of every run (`tessera_runtime.logs`, `tessera_runtime.metrics`). Raises `BundleError` for a bundle
    that is damaged or too new, `RunError` for a machine that cannot run it.
    """
    if verify not in ("code", "full"):
        raise RunError(
            "ARGUMENT", "verify has a value that is not known", expected="'code' or 'full'", found=repr(verify)
        )
    count = _count_of(threads)
    began = time.perf_counter()
    with open_bundle(path) as bundle:
        choice = choose_variant(bundle.variants, this_machine())
        if verify == "full":
            bundle.verify_full()
        image = CodeImage(memoryview(_checked_code(bundle, choice.variant)))
        config = choice.variant.config
        check_description(image.describe(), config)
        _check_signature(image.signature(), config)
        weights = _weight_table(bundle, choice.variant)
        program = Program(config, image, PROCESS_POOLS.get(image, count), weights)
        reporter = Reporter(str(bundle.identity), config.target.name, observers) if observers else None
        model = Model(program, choice, bundle.identity, reporter)
    if reporter is not None:
        reporter.loaded(os.fspath(path), count, time.perf_counter() - began)
    return model


def _count_of(threads: object) -> int:
    if threads is None:
        return min(default_threads(), MAX_THREADS)
    if not isinstance(threads, SupportsIndex) or not 1 <= threads.__index__() <= MAX_THREADS:
        raise RunError(
            "ARGUMENT", "the number of threads is not sensible", expected=f"1 to {MAX_THREADS}", found=repr(threads)
        )
    return threads.__index__()


def _checked_code(bundle: Bundle, variant: VariantRecord) -> bytes:
    """The variant's code, after all its layers but the weights were compared with their digests."""
    for layer in variant.manifest.layers:
        if layer.media_type not in (media.WEIGHTS, media.ELF_CODE):
            bundle.read(layer)
    return bundle.copy(variant.layers(media.ELF_CODE)[0])


def check_description(found: object, config: Config) -> None:
    """The code must be the code of this config; a writer that mixes variants up is caught here.

    It may say more than this reader knows: what later minor versions of the format describe can be ignored.
    """
    expected = {
        "abi": ABI_VERSION,
        "entries": [entry.name for entry in config.entries],
        "weights": len(config.weights),
    }
    told = _members(found)
    if any(told.get(key) != value for key, value in expected.items()):
        raise _mismatch(expected, told)


def _check_signature(found: object, config: Config) -> None:
    """Every entry must have as many outputs as its code writes, and no fewer inputs than that reads."""
    if found is None:
        return
    inputs, outputs = [len(entry.inputs) for entry in config.entries], [len(entry.outputs) for entry in config.entries]
    told = _members(found)
    counts = cast("list[object]", read) if isinstance(read := told.get("inputs"), list) else []
    known = [count for count in counts if isinstance(count, int)]
    enough = len(known) == len(inputs) and all(count <= there for count, there in zip(known, inputs, strict=True))
    if not enough or told.get("outputs") != outputs:
        raise _mismatch({"inputs": inputs, "outputs": outputs}, told)


def _members(found: object) -> dict[str, object]:
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _mismatch(expected: object, found: object) -> BundleError:
    return BundleError(
        "CODE_MISMATCH",
        "the code describes another model than the config",
        expected=str(expected),
        found=str(found),
    )


def _weight_table(bundle: Bundle, variant: VariantRecord) -> WeightTable:
    layers = variant.layers(media.WEIGHTS)
    views = {layer.digest: bundle.weights(layer) for layer in layers}
    bases: dict[Digest, int] = {digest: _address(view) for digest, view in views.items()}
    config = variant.config
    addresses = (ctypes.c_void_p * len(config.weights))()
    for index, weight in enumerate(config.weights):
        addresses[index] = bases[weight.digest] + weight.offset
    return WeightTable(addresses, tuple(views.values()))


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0]) if view.nbytes else 0
