from tessera import Tensor, graph, op

@graph.autodiff
@graph.module("m")
def first(x: Tensor["B", 4]):
    return x


@graph.module("m_grad")
def second(x: Tensor["B", 4]):
#^ DUPLICATE_NAME: two entries are called 'm_grad'
    return x * 2
