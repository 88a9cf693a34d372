"""Train the digits network and write the two files that the quickstart reads.

Takes: scikit-learn's 1,797 real handwritten digits (8×8 pixels). Gives: `digits.onnx`, a small convolutional
network with a symbolic batch dimension, and `digits_test.npz`, the 540 images (`image`, float32 in 0…1) and labels
(`label`) that it was never trained on. Fails unless onnxruntime scores at least 98 % on them.
Invariant: split, initial weights and batch order follow one seed; the ONNX file is built node by node, without an
exporter, so that a reader sees exactly the network below.

    pip install '.[examples]' && python examples/digits/train.py
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
SEED = 20261121
EPOCHS = 60
BATCH = 64
REQUIRED_ACCURACY = 0.98

FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Images [n, 1, 8, 8] in 0…1 and their labels, in two disjoint parts."""

    train_images: FloatArray
    train_labels: LabelArray
    test_images: FloatArray
    test_labels: LabelArray


class DigitsNetwork(nn.Module):
    """Three convolutions with batch normalisation, the last one residual, two poolings and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32 * 2 * 2, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of images [batch, 1, 8, 8]."""
        wide = torch.relu(self.norm1(self.conv1(image)))
        deep = nn.functional.max_pool2d(torch.relu(self.norm2(self.conv2(wide))), 2)
        residual = torch.relu(deep + self.norm3(self.conv3(deep)))
        return self.linear(torch.flatten(nn.functional.max_pool2d(residual, 2), 1))


def load_split() -> Split:
    """The digits, stratified by label: 70 % to train on, 30 % (540 images) to test with."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None, :, :]
    labels = digits.target.astype(np.int64)
    parts = train_test_split(np.arange(len(labels)), test_size=540, random_state=SEED, stratify=labels)
    train_rows, test_rows = (np.asarray(part, np.int64) for part in parts)
    return Split(images[train_rows], labels[train_rows], images[test_rows], labels[test_rows])


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images moved by at most one pixel each way: the only augmentation."""
    down, right = (int(step) - 1 for step in torch.randint(0, 3, (2,), generator=generator))
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return padded[:, :, 1 + down : 9 + down, 1 + right : 9 + right]


def train(split: Split) -> DigitsNetwork:
    """A trained network in evaluation mode; the test part of the split is not looked at."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    network = DigitsNetwork()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(network(shifted(images[chosen], generator)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return network.eval()


def convolution(source: str, result: str, layer: str) -> onnx.NodeProto:
    """A 3×3 convolution that keeps the image's size."""
    inputs = [source, f"{layer}.weight", f"{layer}.bias"]
    return helper.make_node("Conv", inputs, [result], layer, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def normalisation(source: str, result: str, layer: str) -> onnx.NodeProto:
    """Batch normalisation by the running statistics, unfolded: folding it is the compiler's work."""
    inputs = [source, f"{layer}.weight", f"{layer}.bias", f"{layer}.running_mean", f"{layer}.running_var"]
    return helper.make_node("BatchNormalization", inputs, [result], layer)


def pooling(source: str, result: str, layer: str) -> onnx.NodeProto:
    """The maximum of each 2×2 square."""
    return helper.make_node("MaxPool", [source], [result], layer, kernel_shape=[2, 2], strides=[2, 2])


def to_onnx(network: DigitsNetwork) -> onnx.ModelProto:
    """The network as ONNX opset 17, with a softmax at its end and `batch` as a symbolic dimension."""
    nodes = [
        convolution("image", "c1", "conv1"),
        normalisation("c1", "n1", "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        convolution("r1", "c2", "conv2"),
        normalisation("c2", "n2", "norm2"),
        helper.make_node("Relu", ["n2"], ["r2"], "relu2"),
        pooling("r2", "p2", "pool2"),
        convolution("p2", "c3", "conv3"),
        normalisation("c3", "n3", "norm3"),
        helper.make_node("Add", ["p2", "n3"], ["a3"], "residual"),
        helper.make_node("Relu", ["a3"], ["r3"], "relu3"),
        pooling("r3", "p3", "pool3"),
        helper.make_node("Flatten", ["p3"], ["features"], "flatten", axis=1),
        helper.make_node("Gemm", ["features", "linear.weight", "linear.bias"], ["logits"], "linear", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights_of(network),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def weights_of(network: DigitsNetwork) -> list[TensorProto]:
    """Every float parameter and running statistic, in the order in which the network declares them."""
    state = network.state_dict()
    return [
        numpy_helper.from_array(value.numpy(), name) for name, value in state.items() if value.dtype == torch.float32
    ]


def accuracy(model: onnx.ModelProto, split: Split) -> float:
    """The share of test images that onnxruntime labels rightly."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities = np.asarray(session.run(None, {"image": split.test_images})[0])
    return float(np.mean(probabilities.argmax(axis=1) == split.test_labels))


def main() -> int:
    """Train, score, write; 1 when the network is not good enough to be shown."""
    split = load_split()
    model = to_onnx(train(split))
    score = accuracy(model, split)
    print(f"test accuracy {score:.4f} on {len(split.test_labels)} images")
    if score < REQUIRED_ACCURACY:
        return 1
    (HERE / "digits.onnx").write_bytes(model.SerializeToString(deterministic=True))
    np.savez_compressed(HERE / "digits_test.npz", image=split.test_images, label=split.test_labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
