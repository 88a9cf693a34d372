"""Train examples/mlp with the gradients of its own bundle, and write model.safetensors.

Takes scikit-learn's 1,797 handwritten digits; builds model.py, runs its entry `train` in a loop of plain gradient
descent, and writes the weights beside the model. Fails unless the entry `classify`, built again with them, labels 96 %
of the 540 images right that it never saw. Invariant: split, first weights and order of batches follow one seed.

    pip install '.[examples]' && python examples/mlp/train.py
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tessera_build
import tessera_runtime
from tessera_build.frontends.python import read_python

SEED = 20260101
EPOCHS, BATCH, RATE, MOMENTUM = 60, 32, 0.05, 0.9
LEAST = 0.96
HERE = Path(__file__).parent
Weights = dict[str, NDArray[np.float32]]


def first_weights() -> Weights:
    """The numbers that model.py's initialisers give: without the file they are the constants of `classify`."""
    (HERE / "model.safetensors").unlink(missing_ok=True)
    module = read_python(HERE / "model.py", entries=["classify"]).module
    return {name: np.asarray(module.constants[digest], np.float32) for digest, name in module.constant_names.items()}


def trained(model: tessera_runtime.Model, weights: Weights, images: Weights, labels: NDArray[np.int64]) -> Weights:
    """Gradient descent with momentum."""
    step, generator = model.entries["train"], np.random.default_rng(SEED)
    speeds = {name: np.zeros_like(value) for name, value in weights.items()}
    for epoch in range(EPOCHS):
        order, total = generator.permutation(len(labels)), 0.0
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            found = step.run({"x": images["x"][chosen], "label": labels[chosen], **weights})
            total += float(found["loss"])
            for name in weights:
                change = RATE * np.asarray(found[f"grad.{name}"], np.float32)
                speeds[name] = (MOMENTUM * speeds[name] - change).astype(np.float32)
                weights[name] = weights[name] + speeds[name]
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / (len(order) // BATCH):.4f}")
    return weights


def write_safetensors(path: Path, weights: Weights) -> None:
    """Eight bytes with the header's length, the header, the numbers."""
    header: dict[str, object] = {}
    data = b""
    for name, value in sorted(weights.items()):
        raw = value.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def main() -> int:
    """Train, write, score."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images.astype(np.float32) / 16, labels, test_size=540, random_state=SEED, stratify=labels)
    seen, unseen = (np.asarray(part, np.float32) for part in split[:2])
    seen_labels, unseen_labels = (np.asarray(part, np.int64) for part in split[2:])
    weights = first_weights()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "mlp.tessera"
        tessera_build.build(HERE / "model.py", out=bundle)
        with tessera_runtime.load(bundle) as model:
            weights = trained(model, weights, {"x": seen}, seen_labels)
        write_safetensors(HERE / "model.safetensors", weights)
        tessera_build.build(HERE / "model.py", out=bundle)
        with tessera_runtime.load(bundle) as model:
            found = model.entries["classify"].run({"x": unseen})["probabilities"]
    right = float((found.argmax(1) == unseen_labels).mean())
    print(f"right: {right:.4f} of {len(unseen_labels)}")
    return 0 if right >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
