"""The error of this room: a build whose answers differ from the reference.

Takes: the graph node or output that is wrong, the tolerance and the error found.
Gives: `VerificationError`, after which no bundle is written.
Invariant: `where` is the name of a node of the source model whenever one group by itself gives the wrong answer.
"""

from typing import ClassVar

from bundle_format.errors import TesseraError


class VerificationError(TesseraError):
    """What was built computes something else than the model says."""

    exit_code: ClassVar[int] = 5
