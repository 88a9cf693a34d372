"""Places and movements of data: `device(cpu)`, `device(gpu)`, `prefetch`, `mesh`.

Takes places; gives what may stand behind `with` and behind `@`. Invariant: there is one place, the one that a bundle is
built for; asking for another one is refused where it is asked for, and never left out in silence.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Never

from tessera.errors import LanguageError
from tessera.model.site import here


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of device, and which one of several."""

    kind: str
    index: int = 0

    def __getitem__(self, index: int) -> Place:
        return replace(self, index=index)

    def __str__(self) -> str:
        return f"{self.kind}[{self.index}]"


cpu = Place("cpu")
gpu = Place("gpu")


class Device(nullcontext[None]):
    """Everything where it is anyway."""


def device(place: Place) -> Device:
    """`with device(cpu):`, and `State[...] @ device(cpu)`."""
    if place != cpu:
        raise unplaced(f"device({place})")
    return Device()


def prefetch(obj: object, *, into: str, overlap: str = "compute") -> Never:
    """Refused: a schedule decides what is loaded early."""
    del obj
    raise unplaced(f"prefetch into {into}, overlapping {overlap}")


def mesh(*devices: object, layout: object = None) -> Never:
    """Refused: there is one device."""
    raise unplaced(f"mesh of {len(devices)} devices, layout {layout}")


def unplaced(what: str) -> LanguageError:
    """The error of a placement that nothing keeps."""
    return LanguageError(
        "PLACEMENT_UNSUPPORTED",
        "a model has one place: the target that it is built for",
        site=here(),
        expected="device(cpu), or no placement",
        found=what,
        hint="leave the line out; --target chooses the machine",
    )
