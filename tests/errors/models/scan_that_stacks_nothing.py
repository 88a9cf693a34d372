from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3], rows: Tensor[5, 3]):
    return op.scan(lambda carried, row: carried + row, x, rows)
    #      ^ BAD_ARGUMENT: the body of scan gives no pair
