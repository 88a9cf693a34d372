"""What people are told of a model that draws random numbers.

Takes a module; gives sentences. Invariant: a sentence names nodes of the source model.
"""

from tessera_build.ir.graph.draws import repeated_draws
from tessera_build.ir.graph.nodes import Module

_NAMED = 5


def draw_warnings(module: Module) -> list[str]:
    """Nothing for a model without draws, or whose keys are inputs."""
    names = repeated_draws(module)
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        f"{', '.join(names[:_NAMED])}{more} draw{'s' if len(names) == 1 else ''} the same random numbers in every run, "
        "and others than onnxruntime, so that no proof compares what depends on them with it; "
        "to draw anew, make the numbers an input of the model"
    ]
