from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

class Net(graph.Module):
#^ NO_FORWARD: the class Net has no forward method
    pass


net = Net()


@graph.module("m")
def m(x: Tensor["B", 4]):
    return net(x)
