"""The record of a proof, which travels with the bundle outside its identity.

Takes: the cases that were run and how far each answer was from each reference.
Gives: canonical JSON, and back.
Invariant: it says what was compared and what was not; a reader needs nothing else to repeat it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, cast

from bundle_format.canonical import Json, canonical_bytes, parse_canonical
from bundle_format.errors import BundleError

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class OutputProof:
    """One output of one case: its digest, and its error against each reference that was asked."""

    name: str
    digest: str
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CaseProof:
    """One run of the whole model. `inputs` maps a name to the digest of what the seed gave."""

    entry: str
    sizes: Mapping[str, int]
    seed: int
    inputs: Mapping[str, str]
    outputs: tuple[OutputProof, ...]


@dataclass(frozen=True, slots=True)
class GroupProof:
    """One fusion group with the reference's inputs, by the name of its graph node."""

    node: str
    kernel: str
    error: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved of one variant. `method` is "native" where its code ran on this machine.

    With "tile", the graph after the passes gave the outputs, and sampled tile programs ran in the interpreter.
    `in_regions` of the launches stand inside loops and choices: only the whole runs prove those.
    """

    target: str
    method: str
    machine: str
    references: Mapping[str, str]
    tolerance: Mapping[str, float]
    cases: tuple[CaseProof, ...]
    groups: tuple[GroupProof, ...]
    launches: int
    in_regions: int = 0
    format: int = FORMAT

    @property
    def max_error(self) -> float:
        """The largest error of any output against any reference."""
        return max((e for case in self.cases for output in case.outputs for e in output.errors.values()), default=0.0)

    @property
    def max_group_error(self) -> float:
        """The largest error of any fusion group."""
        return max((group.error for group in self.groups), default=0.0)


def proof_bytes(proof: Proof) -> bytes:
    """The JSON that is attached to the bundle."""
    return canonical_bytes(cast(Json, asdict(proof)))


def parse_proof(data: bytes | memoryview) -> Proof:
    """Read what `proof_bytes` wrote; anything else is a `BundleError`."""
    try:
        record = cast("dict[str, object]", parse_canonical(data))
        if record.get("format") != FORMAT:
            raise BundleError("PROOF_UNKNOWN", "the proof has a form that this version does not know")
        cases = tuple(_case(item) for item in cast("list[dict[str, object]]", record.pop("cases")))
        groups = tuple(GroupProof(**item) for item in cast("list[dict[str, object]]", record.pop("groups")))  # type: ignore[arg-type]
        return Proof(**record, cases=cases, groups=groups)  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError("PROOF_DAMAGED", "the attached proof cannot be read", found=str(error)) from error


def _case(record: dict[str, object]) -> CaseProof:
    outputs = tuple(OutputProof(**item) for item in cast("list[dict[str, object]]", record.pop("outputs")))  # type: ignore[arg-type]
    return CaseProof(**record, outputs=outputs)  # type: ignore[arg-type]
