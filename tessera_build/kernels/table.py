"""The graph ops whose kernels are written in the tile language, by name.

Takes the kernels' files; gives `KERNELS`. Invariant: an op with a row here has no compute definition; attention, whose
kernel is tuned to the machine's registers, is lowered by a rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tessera_build.ir.core.node import Function
from tessera_build.kernels.compaction import groups, non_zero
from tessera_build.kernels.coupling import coupled
from tessera_build.kernels.cumulate import cumulate
from tessera_build.kernels.elimination import determinant, solve
from tessera_build.kernels.grams import count_grams
from tessera_build.kernels.look_up import look_up
from tessera_build.kernels.regions import max_regions, sample_regions
from tessera_build.kernels.rows import sort_rows
from tessera_build.kernels.scatter import scatter_elements, scatter_nd, scatter_rows
from tessera_build.kernels.subject import KernelSubject
from tessera_build.kernels.suppression import listed, suppress
from tessera_build.kernels.top_k import top_k
from tessera_build.kernels.trees import tree_ensemble

KernelMaker = Callable[[KernelSubject], Function]
KERNELS: Mapping[str, KernelMaker] = MappingProxyType(
    {
        "cumulate": cumulate,
        "count_grams": count_grams,
        "coupled": coupled,
        "determinant": determinant,
        "groups": groups,
        "listed": listed,
        "look_up": look_up,
        "max_regions": max_regions,
        "non_zero": non_zero,
        "sample_regions": sample_regions,
        "scatter_elements": scatter_elements,
        "scatter_nd": scatter_nd,
        "scatter_rows": scatter_rows,
        "solve": solve,
        "sort_rows": sort_rows,
        "suppress": suppress,
        "top_k": top_k,
        "tree_ensemble": tree_ensemble,
    }
)
