from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return [x for _ in range(x.shape[0])]
    #                  ^ EXTENT_AS_PYTHON: an extent is asked for an index or a count while the model is traced
