"""onnxruntime's InferenceSession on a bundle.

Takes: the path of a bundle, or of the ONNX file it was built from when the bundle lies beside it.
Gives: lists of arrays, or what else the source's results are, in the order of the outputs asked for.
Invariant: a session is as re-entrant as the model; an ONNX file is accepted only when its digest is the one that the
bundle was built from.
"""

import logging
import mmap
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Final, cast, final

import numpy as np

from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from bundle_format.reader import open_bundle
from bundle_format.schema import Result
from tessera_runtime.arrays import Array, TensorSpec
from tessera_runtime.compat.binding import IOBinding
from tessera_runtime.compat.errors import InvalidArgument, NoModel, NoSuchFile, translated
from tessera_runtime.compat.errors import NotImplemented as Unsupported
from tessera_runtime.compat.options import LOG_LEVELS, RunOptions, SessionOptions
from tessera_runtime.compat.results import Answer, assembled, results_of, shown
from tessera_runtime.compat.values import ModelMetadata, NodeArg, OrtValue, node_arg
from tessera_runtime.loader import load
from tessera_runtime.logs import LOGGER_NAME, Logs
from tessera_runtime.observe import Observer

PROVIDER: Final = "CPUExecutionProvider"
# The runtime does without pathlib, which takes 3.5 ms to import.
# ruff: noqa: PTH110


@final
class InferenceSession:
    """A loaded model with onnxruntime's methods."""

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[object] | None = None,
        provider_options: Sequence[Mapping[str, object]] | None = None,
        **ignored: object,
    ) -> None:
        self._options = sess_options or SessionOptions()
        _check_providers(providers, provider_options, ignored)
        path = _bundle_path(path_or_bytes)
        threads = self._options.intra_op_num_threads or None
        try:
            self._model = load(path, threads=threads, observers=_observers(self._options))
        except TesseraError as error:
            raise translated(error) from error
        self._specs = {spec.name: spec for spec in self._model.inputs}
        self._results = {r.name: r for r in results_of(self._model.outputs, self._model.main.results)}

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        run_options: RunOptions | None = None,
    ) -> list[Answer]:
        """Run once: the outputs asked for, all of them when none is named."""
        wanted = self._wanted(output_names)
        feeds = {name: self._fed(name, value) for name, value in input_feed.items()}
        results = self._call(feeds, None, run_options)
        return [assembled(result, results) for result in wanted]

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """Run once with tensors in boxes."""
        answers = self.run(output_names, input_dict_ort_values, run_options)
        arrays = [answer for answer in answers if isinstance(answer, np.ndarray)]
        if len(arrays) < len(answers):
            raise Unsupported("OUTPUT_KIND", "only tensors lie in boxes", hint="use run, or ask for other outputs")
        return [OrtValue(array) for array in arrays]

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run once on memory that was bound."""
        iobinding.keep(self._call(iobinding.feeds, iobinding.given, run_options))

    def io_binding(self) -> IOBinding:
        """A new binding for this model."""
        return IOBinding(self.get_inputs(), [node_arg(spec) for spec in self._model.outputs])

    def get_inputs(self) -> list[NodeArg]:
        """The inputs, in the model's order."""
        return [node_arg(spec) for spec in self._model.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the model's order."""
        specs = {spec.name: spec for spec in self._model.outputs}
        return [shown(result, specs) for result in self._results.values()]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: weights are in the bundle."""
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """What is known of the model: the bundle's digest and variant stand in the map."""
        facts = {"tessera.digest": str(self._model.identity), "tessera.variant": self._model.target}
        return ModelMetadata("tessera", self._model.main.name, facts)

    def get_providers(self) -> list[str]:
        """What runs the model."""
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of each provider: there are none."""
        return {PROVIDER: {}}

    def set_providers(
        self, providers: Sequence[object] | None = None, provider_options: Sequence[Mapping[str, object]] | None = None
    ) -> None:
        """Has no effect but a warning about providers that do not exist here."""
        _check_providers(providers, provider_options, {})

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def disable_fallback(self) -> None:
        """There is nothing to fall back from."""

    def enable_fallback(self) -> None:
        """There is nothing to fall back from."""

    def _call(
        self, feeds: Mapping[str, Array], out: Mapping[str, Array] | None, options: RunOptions | None
    ) -> dict[str, Array]:
        try:
            return self._model.run(feeds, out=out, cancel=None if options is None else options.handle)
        except TesseraError as error:
            raise translated(error) from error

    def _wanted(self, names: Sequence[str] | None) -> Sequence[Result]:
        for name in names or ():
            if name not in self._results:
                expected = ", ".join(self._results)
                raise InvalidArgument("OUTPUT_UNKNOWN", "the model has no such output", where=name, expected=expected)
        return [self._results[name] for name in names or self._results]

    def _fed(self, name: str, value: object) -> Array:
        """Lists become arrays of the input's dtype, as in onnxruntime; arrays are never converted."""
        if isinstance(value, OrtValue):
            return value.array
        spec = self._specs.get(name)
        if isinstance(value, list | tuple) and spec is not None:
            return _from_list(cast("Sequence[object]", value), spec)
        return cast(Array, value)


def _from_list(value: Sequence[object], spec: TensorSpec) -> Array:
    try:
        found = np.array(value)
        if found.size == 0 or np.can_cast(found.dtype, spec.numpy, "same_kind" if spec.numpy.kind == "f" else "safe"):
            return found.astype(spec.numpy)
        # Python's integers are of 64 bits: whether an input can hold them is seen by their values.
        if found.dtype.kind in "iu" and np.array_equal(converted := found.astype(spec.numpy), found):
            return converted
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgument("INPUT_KIND", "the list is not an array", where=spec.name, found=str(error)) from error
    raise InvalidArgument(
        "INPUT_DTYPE",
        "the list has values that the input cannot hold",
        where=spec.name,
        expected=spec.dtype,
        found=str(found.dtype),
    )


def _bundle_path(path: str | os.PathLike[str]) -> str:
    if isinstance(path, bytes | bytearray | memoryview):
        hint = "give the path of the bundle"
        raise NoModel("MODEL_BYTES", "a bundle is mapped from its file, not copied from bytes", hint=hint)
    found = os.fspath(path)
    if not os.path.exists(found):
        raise NoSuchFile("NO_SUCH_FILE", "there is no file at this path", where=found)
    if not found.endswith(".onnx"):
        return found
    beside = found.removesuffix(".onnx") + ".tessera"
    hint = f"tessera build {found} -o {beside}"
    if not os.path.exists(beside):
        raise NoModel("NOT_BUILT", "this ONNX file has no bundle beside it", where=found, hint=hint)
    try:
        with open_bundle(beside) as bundle:
            source = bundle.variants[0].config.sources.get("model")
    except TesseraError as error:
        raise translated(error) from error
    digest = _file_digest(found)
    if source != digest:
        expected, message = str(source), "the bundle beside this ONNX file was built from another one"
        raise NoModel("NOT_BUILT", message, where=beside, expected=expected, found=str(digest), hint=hint)
    return beside


def _file_digest(path: str) -> Digest:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size == 0:
            return Digest.of(b"")
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as pages, memoryview(pages) as view:
            return Digest.of(view)
    finally:
        os.close(descriptor)


def _check_providers(providers: Sequence[object] | None, options: object, others: Mapping[str, object]) -> None:
    """Ask for what one likes: the CPU runs it. Providers that do not exist here are warned of, as in onnxruntime."""
    names = [cast("Sequence[object]", item)[0] if isinstance(item, tuple) else item for item in providers or ()]
    absent = [str(name) for name in names if name != PROVIDER]
    if absent:
        text = f"the providers {', '.join(absent)} do not exist here; the model runs on {PROVIDER}"
        warnings.warn(text, UserWarning, stacklevel=3)
    unknown = sorted(others.keys() - {"disabled_optimizers", "enable_fallback"})
    if unknown:
        raise InvalidArgument("ARGUMENT", "a session has no such argument", where=unknown[0])
    del options  # they tune a provider, and the CPU's has none


def _observers(options: SessionOptions) -> tuple[Observer, ...]:
    """Runs are logged only for a program that set a severity."""
    if options.log_severity_level < 0:
        return ()
    logger = logging.getLogger(f"{LOGGER_NAME}.{options.logid or 'session'}")
    logger.setLevel(LOG_LEVELS[min(options.log_severity_level, len(LOG_LEVELS) - 1)])
    return (Logs(logger),)
