from tessera import OptimizerState, Tensor, graph, op, paged

W = op.tensor((3,), init=op.init.normal(seed=1))


@graph.module("m")
def m(x: Tensor[3], s: OptimizerState[W] @ paged):
#                      ^ PLACEMENT_UNSUPPORTED: a model has one place: the target that it is built for
    return s.set(x)
