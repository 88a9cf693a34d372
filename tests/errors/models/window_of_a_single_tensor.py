from tessera import State, Tensor, graph, rolling_window

@graph.module("m")
def m(x: Tensor[3], s: State[3] @ rolling_window):
#                      ^ BAD_STATE: what follows @ is no rule for a state
    return s.set(x)
