from tessera import Tensor, f32, graph, i8, op


@graph.autodiff(wrt="x")
def m(x: Tensor[3]):
    return op.reduce_sum(op.while_(lambda v: op.reduce_max(v) < 100.0, lambda v: v * v, x))
    #                    ^ NOT_DIFFERENTIABLE: loop has no derivative here: nothing but data bounds its iterations: state max_iter (graph.autodiff at derivative_of_an_entry_with_a_loop_without_end.py:5:1 asks for it)
