"""What can go wrong when a sound bundle meets a machine or a caller.

Takes: what was found.
Gives: `RunError`, and its making from a status of the C ABI.
Invariant: a status becomes a message with the node's name or the guard's own words, never a bare number.
"""

from collections.abc import Sequence
from typing import ClassVar

from bundle_format.abi import Status
from bundle_format.errors import TesseraError
from bundle_format.schema import Config

_MESSAGES = {
    Status.INDEX_OUT_OF_RANGE: "an index lies outside the axis that it selects from",
    Status.DIVISION_BY_ZERO: "an integer was divided by zero",
    Status.SIZE_BEYOND_BOUND: "a result is larger than the bound that the build reserved for it",
    Status.OUT_OF_MEMORY: "there is not enough memory for this run",
    Status.CANCELLED: "the run was cancelled",
    Status.NOT_FINITE: "a node gave NaN or an infinity, which this debug build looks for",
    Status.OUT_OF_BOUNDS: "a node wrote past the end of a value, which this debug build looks for",
    Status.BAD_ARGUMENT: "the code refused the arguments of this call",
}


class RunError(TesseraError):
    """A call does not fit the model's signature, or its values were refused, or the code failed."""

    exit_code: ClassVar[int] = 8


class CancelledError(RunError):
    """A run was ended before it was done, because somebody asked for it."""


class DeadlineError(CancelledError):
    """A run was ended before it was done, because its time was up."""


class MachineError(RunError):
    """No variant of the bundle fits this machine."""

    exit_code: ClassVar[int] = 7


def status_error(status: int, node: int, detail: Sequence[int], config: Config) -> RunError:
    """The error of a status other than OK."""
    where = config.nodes[node] if 0 <= node < len(config.nodes) else None
    if status == Status.GUARD_FAILED and 0 <= detail[0] < len(config.guards):
        guard = config.guards[detail[0]]
        where = guard.at or where
        if guard.left.text in {size.name for entry in config.entries for size in entry.sizes}:  # a truth value, no dim
            return RunError(
                "GUARD_FAILED",
                guard.message,
                where=where,
                hint="the inputs' numbers decide this: other ones, or more turns in the model, may do",
            )
        return RunError(
            "GUARD_FAILED",
            guard.message,
            where=where,
            expected=f"{guard.left.text} {guard.relation} {guard.right.text}",
            found=f"{detail[1]} and {detail[2]}",
            hint="give inputs of another size, or build the model for these sizes",
        )
    try:
        known = Status(status)
    except ValueError:
        return RunError(
            "STATUS_UNKNOWN", "the code returned a status that this runtime does not know", found=str(status)
        )
    if known is Status.SIZE_BEYOND_BOUND and any(detail):
        return RunError(
            known.name,
            "a size that is computed from data lies outside its bounds",
            where=where,
            expected=f"0 to {detail[1]}",
            found=str(detail[0]),
        )
    kind = CancelledError if known is Status.CANCELLED else RunError
    return kind(known.name, _MESSAGES.get(known, "the code failed"), where=where)
