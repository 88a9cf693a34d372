"""How numbers are stored, added up and judged.

Takes: `configs/precision/*.yaml` or a user's own file. Gives: a frozen `PrecisionConfig`.
Invariant: a tolerance is a share of the largest magnitude in the reference output, never an absolute number, so that
it means the same for every model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tessera_build.config.document import find_document, read_document, standard_names
from tessera_build.config.kinds import WORD, choice, number
from tessera_build.config.section import Section

# Storage is every floating-point type that a kernel can read; sums need at least the range of f32.
STORAGE_DTYPES: Final = ("f64", "f32", "bf16", "f16")
ACCUMULATE_DTYPES: Final = ("f64", "f32")
NUMERICS: Final = ("reproducible", "fast")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a proof accepts. Errors are shares of max |reference|; `agreement` is a share of elements."""

    group: float
    end_to_end: float
    agreement: float


@dataclass(frozen=True, slots=True)
class PrecisionConfig:
    """A numeric policy: storage and accumulation types, order of sums, and the tolerance it is held to.

    `winograd_max_error`, `products_max_error`: how far Winograd's transforms, and for products Strassen's algorithm
    and terms in pairs, may put outputs off, relative to their deviation; 0: never.
    """

    name: str
    storage: str
    accumulate_contract: str
    accumulate_reduce: str
    numerics: str
    winograd_max_error: float
    products_max_error: float
    tolerance: Tolerance


def list_precisions() -> tuple[str, ...]:
    """The names of the policies that come with Tessera."""
    return standard_names("precision")


def load_precision(name_or_path: str | Path) -> PrecisionConfig:
    """A policy by name (`fp32`) or from a YAML file; `ConfigError` for anything that is not understood."""
    top = read_document(find_document("precision", name_or_path))
    accumulate = top.section("accumulate")
    config = PrecisionConfig(
        name=top.get("name", WORD),
        storage=top.get("storage", choice(*STORAGE_DTYPES)),
        accumulate_contract=accumulate.get("contract", choice(*ACCUMULATE_DTYPES)),
        accumulate_reduce=accumulate.get("reduce", choice(*ACCUMULATE_DTYPES)),
        numerics=top.get("numerics", choice(*NUMERICS)),
        winograd_max_error=_max_error(top, "winograd"),
        products_max_error=_max_error(top, "products"),
        tolerance=_tolerance(top.section("tolerance")),
    )
    top.finish()
    return config


def _max_error(top: Section, name: str) -> float:
    """The bound; files from before there was one keep direct sums."""
    return top.section(name).get("max_error", number(0.0, 1e-2)) if name in top.names() else 0.0


def _tolerance(section: Section) -> Tolerance:
    """The tolerance of a policy. A bound of 1 would accept an output of zeros, hence the upper ends."""
    return Tolerance(
        group=section.get("group", number(0.0, 0.1)),
        end_to_end=section.get("end_to_end", number(0.0, 0.1)),
        agreement=section.get("agreement", number(0.5, 1.0)),
    )
