from tessera import State, Tensor, graph

@graph.module("m")
def m(x: Tensor[3], s: State[3]):
#^ STATE_TWICE: the entry m returns two next states of s
    return s.set(x), s.set(x + 1)
