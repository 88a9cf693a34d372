"""Models with If, Loop and Scan in ONNX's text syntax, with inputs for them.

Takes nothing; gives models by name, each with sets of inputs. Invariant: onnxruntime runs every model on every set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import parser

from tessera_build.ir.graph.nodes import Array


@dataclass(frozen=True, slots=True)
class ControlCase:
    """A model as text, its opset, and sets of inputs."""

    text: str
    inputs: tuple[Mapping[str, Array], ...]
    opset: int = 16

    def model(self) -> onnx.ModelProto:
        """The protobuf."""
        header = f'<ir_version: 8, opset_import: ["" : {self.opset}]>\n'
        return parser.parse_model(header + self.text)


def _floats(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _int(value: int) -> Array:
    return np.asarray(value, np.int64)


def _bool(value: ArrayLike) -> Array:
    return np.asarray(value, np.bool_)


CASES: dict[str, ControlCase] = {
    "if_captures": ControlCase(
        """g (float[N, 3] x, bool flag) => (float[N, 3] y, float[N, 3] z) {
            e = Exp(x)
            y, z = If (flag) <
                then_branch = t () => (float[N, 3] a, float[N, 3] b) { a = Add(e, x) b = Identity(x) },
                else_branch = f () => (float[N, 3] c, float[N, 3] d) { c = Neg(x) d = Mul(e, e) }
            >
        }""",
        tuple({"x": _floats(2, 3), "flag": _bool(flag)} for flag in (True, False)),
    ),
    "if_nested_by_data": ControlCase(
        """g (float[4] x) => (float[4] y) {
            s = ReduceSum <keepdims = 0> (x)
            zero = Constant <value = float {0.0}> ()
            positive = Greater(s, zero)
            y = If (positive) <
                then_branch = t () => (float[4] a) {
                    one = Constant <value = float {1.0}> ()
                    large = Greater(s, one)
                    a = If (large) <
                        then_branch = tt () => (float[4] p) { x2 = Mul(x, x) p = Sqrt(x2) },
                        else_branch = tf () => (float[4] q) { q = Add(x, one) }
                    >
                },
                else_branch = f () => (float[4] b) { b = Abs(x) }
            >
        }""",
        tuple({"x": np.full(4, v, np.float32)} for v in (-1.0, 0.1, 2.0)),
    ),
    "if_of_other_extents": ControlCase(
        """g (float[N, 3] x, bool flag) => (float[K] y, int64[K] z, float s) {
            zero = Constant <value = int64[1] {0}> ()
            all = Constant <value = int64[1] {-1}> ()
            y, z = If (flag) <
                then_branch = t () => (float[P] a, int64[P] b) {
                    a = Reshape(x, all)
                    b = Cast <to = 7> (a)
                },
                else_branch = f () => (float[3] c, int64[Q] d) {
                    c = ReduceSum <keepdims = 0> (x, zero)
                    e = Reshape(x, all)
                    two = Constant <value = int64[1] {2}> ()
                    p = Slice(e, zero, two)
                    d = Cast <to = 7> (p)
                }
            >
            s = ReduceSum <keepdims = 0> (y)
        }""",
        tuple({"x": _floats(n, 3), "flag": _bool(flag)} for n in (1, 4) for flag in (True, False)),
    ),
    "loop_over_captured_rows": ControlCase(
        """g (float[N, 4] x, float[1, 4] start) => (float[1, 4] last, float[N, 1, 4] every) {
            shape = Shape(x)
            zero = Constant <value = int64[1] {0}> ()
            n = Gather(shape, zero)
            count = Squeeze(n)
            last, every = Loop (count, , start) <
                body = b (int64 i, bool c, float[1, 4] h) => (bool again, float[1, 4] h2, float[1, 4] out) {
                    again = Identity(c)
                    first = Unsqueeze(i, zero)
                    one = Constant <value = int64[1] {1}> ()
                    next = Add(first, one)
                    row = Slice(x, first, next, zero)
                    sum = Add(row, h)
                    h2 = Tanh(sum)
                    out = Mul(h2, h2)
                }
            >
        }""",
        tuple({"x": _floats(n, 4), "start": _floats(1, 4)} for n in (1, 3, 6)),
    ),
    "loop_while": ControlCase(
        """g (float[3] x) => (float[3] y, int64 steps) {
            yes = Constant <value = bool {1}> ()
            none = Constant <value = int64 {0}> ()
            y, steps = Loop (, yes, x, none) <
                body = b (int64 i, bool c, float[3] h, int64 k) => (bool again, float[3] h2, int64 k2) {
                    half = Constant <value = float {0.5}> ()
                    one = Constant <value = int64 {1}> ()
                    h2 = Mul(h, half)
                    k2 = Add(k, one)
                    top = ReduceMax <keepdims = 0> (h2)
                    limit = Constant <value = float {0.3}> ()
                    again = Greater(top, limit)
                }
            >
        }""",
        tuple({"x": np.asarray(v, np.float32)} for v in ([1, 5, 2], [0.1, 0.2, 0.3], [100, 1, 7])),
    ),
    "loop_count_from_data": ControlCase(
        """g (int64 n, float[2, 2] x) => (float[2, 2] y, float[K, 2, 2] every) {
            y, every = Loop (n, , x) <
                body = b (int64 i, bool c, float[2, 2] h) => (bool again, float[2, 2] h2, float[2, 2] out) {
                    again = Identity(c)
                    h2 = MatMul(h, x)
                    f = Cast <to = 1> (i)
                    out = Add(h2, f)
                }
            >
        }""",
        tuple({"n": _int(n), "x": _floats(2, 2)} for n in (0, 1, 5)),
    ),
    "loop_stops_and_stacks": ControlCase(
        """g (float[2] x) => (float[2] y, float[K, 2] every) {
            limit = Constant <value = int64 {10}> ()
            yes = Constant <value = bool {1}> ()
            y, every = Loop (limit, yes, x) <
                body = b (int64 i, bool c, float[2] h) => (bool again, float[2] h2, float[2] out) {
                    two = Constant <value = float {2.0}> ()
                    h2 = Mul(h, two)
                    out = Add(h2, h)
                    top = ReduceMax <keepdims = 0> (h2)
                    most = Constant <value = float {20.0}> ()
                    again = Less(top, most)
                }
            >
        }""",
        tuple({"x": np.asarray(v, np.float32)} for v in ([1, 2], [50, 1], [-1, -2])),
    ),
    "loop_carries_counters": ControlCase(
        """g (float[N, 2] x) => (float[1, 2] y, int64[1] i, float[2] same, int64 down) {
            shape = Shape(x)
            zero = Constant <value = int64[1] {0}> ()
            ten = Constant <value = int64 {10}> ()
            one = Constant <value = int64[1] {1}> ()
            extent = Gather(shape, zero)
            n = Squeeze(extent)
            bias = ReduceSum <keepdims = 0> (x, zero)
            start = Slice(x, zero, one, zero)
            y, i, same, down = Loop (n, , start, zero, bias, ten) <
                body = b (int64 k, bool c, float[1, 2] h, int64[1] p, float[2] d, int64 q) =>
                         (bool again, float[1, 2] h2, int64[1] p2, float[2] d2, int64 q2) {
                    again = Identity(c)
                    p2 = Add(p, one)
                    three = Constant <value = int64 {3}> ()
                    q2 = Sub(q, three)
                    row = Slice(x, p, p2, zero)
                    f = Cast <to = 1> (q)
                    a = Mul(row, f)
                    s = Add(h, a)
                    t = Add(s, d)
                    h2 = Tanh(t)
                    d2 = Identity(d)
                }
            >
        }""",
        tuple({"x": _floats(n, 2)} for n in (1, 4)),
    ),
    "loop_stops_with_counter": ControlCase(
        """g (float[6, 2] x, float limit) => (float[1, 2] y, int64[1] i) {
            zero = Constant <value = int64[1] {0}> ()
            one = Constant <value = int64[1] {1}> ()
            six = Constant <value = int64 {6}> ()
            yes = Constant <value = bool {1}> ()
            start = Slice(x, zero, one, zero)
            y, i = Loop (six, yes, start, zero) <
                body = b (int64 k, bool c, float[1, 2] h, int64[1] p) => (bool again, float[1, 2] h2, int64[1] p2) {
                    p2 = Add(one, p)
                    row = Slice(x, p, p2, zero)
                    a = Abs(row)
                    h2 = Add(h, a)
                    top = ReduceMax <keepdims = 0> (h2)
                    again = Less(top, limit)
                }
            >
        }""",
        tuple({"x": _floats(6, 2), "limit": np.asarray(v, np.float32)} for v in (0.0, 2.0, 100.0)),
    ),
    "loop_collects_rows": ControlCase(
        """g (float[N, 3] x, float[2, 3] start) => (float[K, 3] all, float s) {
            shape = Shape(x)
            zero = Constant <value = int64[1] {0}> ()
            extent = Gather(shape, zero)
            n = Squeeze(extent)
            all = Loop (n, , start) <
                body = b (int64 i, bool c, float[M, 3] h) => (bool again, float[L, 3] h2) {
                    again = Identity(c)
                    one = Constant <value = int64[1] {1}> ()
                    first = Unsqueeze(i, zero)
                    next = Add(first, one)
                    row = Slice(x, first, next, zero)
                    sum = ReduceSum (h, zero)
                    new = Tanh(sum)
                    both = Add(new, row)
                    h2 = Concat <axis = 0> (h, both, row)
                }
            >
            s = ReduceSum <keepdims = 0> (all)
        }""",
        tuple({"x": _floats(n, 3), "start": _floats(2, 3)} for n in (1, 2, 5)),
    ),
    "loop_attends_to_what_it_made": ControlCase(
        """g (float[N, 8] x, float[1, 8] first) => (float[1, K, 8] all, float[N] y) {
            one = Constant <value = int64 {1}> ()
            zero = Constant <value = int64[1] {0}> ()
            shape = Shape(x)
            extent = Gather(shape, zero)
            n = Squeeze(extent)
            less = Sub(n, one)
            start = Unsqueeze(first, zero)
            all = Loop (less, , start) <
                body = b (int64 i, bool c, float[1, M, 8] h) => (bool again, float[1, L, 8] h2) {
                    again = Identity(c)
                    row = Gather <axis = 0> (x, i)
                    two = Constant <value = int64[2] {0, 1}> ()
                    q = Unsqueeze(row, two)
                    e = Exp(h)
                    k = Transpose <perm = [0, 2, 1]> (e)
                    s = MatMul(q, k)
                    p = Softmax <axis = -1> (s)
                    o = MatMul(p, h)
                    h2 = Concat <axis = 1> (h, o)
                }
            >
            last = Constant <value = int64[1] {1}> ()
            y = ReduceSum <keepdims = 0> (x, last)
        }""",
        tuple({"x": _floats(n, 8), "first": _floats(1, 8)} for n in (1, 2, 7)),
    ),
    "loop_never_runs": ControlCase(
        """g (float[2] x) => (float[2] y) {
            limit = Constant <value = int64 {10}> ()
            no = Constant <value = bool {0}> ()
            y = Loop (limit, no, x) <
                body = b (int64 i, bool c, float[2] h) => (bool again, float[2] h2) {
                    again = Identity(c)
                    h2 = Add(h, h)
                }
            >
        }""",
        ({"x": _floats(2)},),
    ),
    "loops_nested": ControlCase(
        """g (float[3, 3] x) => (float[3, 3] y) {
            three = Constant <value = int64 {3}> ()
            y = Loop (three, , x) <
                body = b (int64 i, bool c, float[3, 3] h) => (bool again, float[3, 3] h2) {
                    again = Identity(c)
                    column = Gather <axis = 1> (x, i)
                    h2 = Loop (three, , h) <
                        body = d (int64 j, bool e, float[3, 3] k) => (bool more, float[3, 3] k2) {
                            more = Identity(e)
                            row = Gather <axis = 0> (h, j)
                            part = Mul(row, column)
                            s = Tanh(k)
                            k2 = Add(s, part)
                        }
                    >
                }
            >
        }""",
        ({"x": _floats(3, 3)},),
    ),
    "loops_nested_as_often_as_data_tell": ControlCase(
        """g (int64 n, float x) => (float[R, C] y) {
            go = Constant <value = bool {1}> ()
            y = Loop (n, go) <
                body = b (int64 i, bool c) => (bool again, float[C] row) {
                    again = Identity(c)
                    row = Loop (n, c) <
                        body = d (int64 j, bool e) => (bool more, float v) {
                            more = Identity(e)
                            sum = Add(i, j)
                            number = Cast <to = 1> (sum)
                            v = Mul(number, x)
                        }
                    >
                }
            >
        }""",
        tuple({"n": np.asarray(n, np.int64), "x": np.asarray(0.5, np.float32)} for n in (3, 1, 5)),
    ),
    "scan_axes_and_directions": ControlCase(
        """g (float[2] s, float[3, N] a, float[N, 2] b) => (float[2] last, float[2, N] p, float[N, 3] q) {
            last, p, q = Scan <num_scan_inputs = 2, scan_input_axes = [1, -2], scan_input_directions = [1, 0],
                               scan_output_axes = [-1, 0], scan_output_directions = [0, 1],
                body = c (float[2] h, float[3] u, float[2] v) => (float[2] h2, float[2] o1, float[3] o2) {
                    t = Add(h, v)
                    h2 = Tanh(t)
                    m = ReduceMax <keepdims = 0> (u)
                    o1 = Mul(h2, m)
                    n = ReduceSum <keepdims = 0> (h)
                    o2 = Add(u, n)
                }
            > (s, a, b)
        }""",
        tuple({"s": _floats(2), "a": _floats(3, n), "b": _floats(n, 2)} for n in (1, 4)),
    ),
    "scan_of_opset_8": ControlCase(
        """g (float[B, 2] s, float[B, N, 2] a) => (float[B, 2] last, float[B, N, 2] all) {
            last, all = Scan <num_scan_inputs = 1, directions = [1],
                body = c (float[2] h, float[2] u) => (float[2] h2, float[2] o) {
                    t = Add(h, u) h2 = Tanh(t) o = Neg(h2)
                }
            > (, s, a)
        }""",
        tuple({"s": _floats(b, 2), "a": _floats(b, 3, 2)} for b in (1, 3)),
        opset=8,
    ),
}
