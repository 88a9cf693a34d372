from tessera import Tensor, graph, op

@graph.module("m")
def m(y: Tensor[3], **xs: Tensor[3]):
#^ INPUT_WITHOUT_NAME: the inputs that xs of the entry m takes have no names
    return {name: x * y for name, x in xs.items()}
