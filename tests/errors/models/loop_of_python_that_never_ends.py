from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    while True:
        x = op.sin(x)
        #   ^ TRACE_TOO_LONG: the model's Python makes more values than a program should have
