from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 8, f32]):
#^ TENSOR_OUT_OF_SCOPE: a tensor is used outside of the function that it was made in
    state = [x]

    def body(carried, row):
        state[0] = state[0] + row
        return carried, None

    op.scan(body, op.zeros((8,)), x)
    return state[0]
