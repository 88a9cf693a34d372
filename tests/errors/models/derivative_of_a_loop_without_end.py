from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    y = op.while_(lambda v: op.reduce_max(v) < 100.0, lambda v: v * v, x)
    #   ^ NOT_DIFFERENTIABLE: loop has no derivative here: nothing but data bounds its iterations: state max_iter (graph.backward at derivative_of_a_loop_without_end.py:7:12 asks for it)
    return graph.backward(op.reduce_sum(y), wrt=x)
