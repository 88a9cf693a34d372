"""onnxruntime's options: those that mean something here, those that may be ignored, those that may not.

Takes: what a program sets. Gives: a number of threads, a log level, a handle that ends runs.
Invariant: an option is ignored only when it cannot change an answer or a file; any other is refused when it is set.
"""

import enum
from typing import Final, final

from tessera_runtime.compat.errors import NotImplemented as Unsupported
from tessera_runtime.limits import CancelHandle


class GraphOptimizationLevel(enum.IntEnum):
    """Ignored: graphs were optimised when the bundle was built."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """Ignored: the order was fixed when the bundle was built."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(enum.IntEnum):
    """Ignored, like the mode."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


@final
class SessionOptions:
    """How a session runs. `intra_op_num_threads` 0 takes what the process may use."""

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        # Without effect on answers.
        self.inter_op_num_threads = 0
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        self.execution_order = ExecutionOrder.DEFAULT
        self.enable_cpu_mem_arena = True
        self.enable_mem_pattern = True
        self.enable_mem_reuse = True
        self.use_deterministic_compute = False
        self.use_per_session_threads = True
        self.profile_file_prefix = "onnxruntime_profile_"
        self._entries: dict[str, str] = {}

    @property
    def enable_profiling(self) -> bool:
        """Always off."""
        return False

    @enable_profiling.setter
    def enable_profiling(self, value: bool) -> None:
        if value:
            raise _refused("enable_profiling", "observers of tessera_runtime.load see every run")

    @property
    def optimized_model_filepath(self) -> str:
        """Always empty."""
        return ""

    @optimized_model_filepath.setter
    def optimized_model_filepath(self, value: str) -> None:
        if value:
            raise _refused("optimized_model_filepath", "`tessera inspect` shows what a bundle holds")

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Kept and otherwise ignored: these entries tune onnxruntime."""
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """What was added."""
        if key not in self._entries:
            raise _refused(f"the entry {key!r}", "it was not added")
        return self._entries[key]

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Refused: dims are fixed by the build."""
        raise _refused("add_free_dimension_override_by_name", f"build with --dim {name}={size}")

    def add_free_dimension_override_by_denotation(self, name: str, size: int) -> None:
        """Refused: dims are fixed by the build."""
        raise _refused("add_free_dimension_override_by_denotation", f"build with --dim, here {name}: {size}")

    def add_initializer(self, name: str, value: object) -> None:
        """Refused: weights are in the bundle."""
        raise _refused("add_initializer", f"build the model with the weight {name!r}, a {type(value).__name__} here")

    def register_custom_ops_library(self, path: str) -> None:
        """Refused: a bundle holds the code of its operators."""
        raise _refused("register_custom_ops_library", f"a bundle needs no library such as {path}")


@final
class RunOptions:
    """How one run runs. `terminate = True` from another thread ends all runs that were given these options."""

    def __init__(self) -> None:
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self.only_execute_path_to_fetches = False
        self._entries: dict[str, str] = {}
        self.handle = CancelHandle()

    @property
    def terminate(self) -> bool:
        """Whether runs are to end."""
        return self.handle.cancelled

    @terminate.setter
    def terminate(self, value: bool) -> None:
        if value:
            self.handle.cancel()
        elif self.handle.cancelled:
            self.handle = CancelHandle()

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Kept and otherwise ignored: these entries tune onnxruntime."""
        self._entries[key] = value

    def get_run_config_entry(self, key: str) -> str:
        """What was added."""
        if key not in self._entries:
            raise _refused(f"the entry {key!r}", "it was not added")
        return self._entries[key]


def _refused(option: str, hint: str) -> Unsupported:
    return Unsupported("OPTION_UNSUPPORTED", "this option of onnxruntime does not exist here", where=option, hint=hint)


# Severities of onnxruntime, from verbose to fatal, as levels of Python's logging.
LOG_LEVELS: Final = (10, 20, 30, 40, 50)
