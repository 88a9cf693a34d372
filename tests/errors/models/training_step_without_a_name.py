from tessera import Tensor, f32, graph, op

@graph.training_step
def train(x: Tensor[3]):
#^ BAD_ARGUMENT: graph.training_step takes a name
    return x
