"""Write model.safetensors with the numbers that training of examples/transformer begins from.

Takes nothing; gives the file beside the model. Invariant: the same seed gives the same bytes.

    python examples/transformer/weights.py
"""

import json
from pathlib import Path

import numpy as np

SEED, WIDTH, LETTERS, LONGEST, LAYERS = 20260101, 32, 32, 64, 2


def main() -> None:
    """Scales of normalisations are ones, all matrices normal numbers divided by the root of their rows."""
    shapes = {"letters": (LETTERS, WIDTH), "places": (LONGEST, WIDTH)}
    for layer in range(LAYERS):
        shapes |= {f"blocks.{layer}.{name}": (WIDTH,) for name in ("norm_in", "norm_out")}
        shapes |= {f"blocks.{layer}.qkv": (WIDTH, 3 * WIDTH), f"blocks.{layer}.out": (WIDTH, WIDTH)}
        shapes |= {f"blocks.{layer}.up": (WIDTH, 4 * WIDTH), f"blocks.{layer}.down": (4 * WIDTH, WIDTH)}
    generator, header, data = np.random.default_rng(SEED), dict[str, object](), b""
    for name, shape in sorted(shapes.items()):
        drawn = generator.standard_normal(shape) / shape[0] ** 0.5 if len(shape) > 1 else np.ones(shape)
        raw = drawn.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (Path(__file__).parent / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


if __name__ == "__main__":
    main()
