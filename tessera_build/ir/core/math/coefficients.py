"""Constants and polynomials of the expansions, by element type.

Takes nothing; gives numbers, exactly representable in their type. Invariant: the f32 polynomials are those that
`derive.py` fits (a test refits them), the f64 ones are Taylor's; coefficients stand from the constant term upwards.
"""

from __future__ import annotations

from math import factorial


def _numbers(*texts: str) -> tuple[float, ...]:
    return tuple(float.fromhex(text) for text in texts)


def _number(text: str) -> float:
    return float.fromhex(text)


LOG2_E = {"f32": _number("0x1.715476p+0"), "f64": _number("0x1.71547652b82fep+0")}
# ln 2 in two parts; the first has so few bits that its product with any exponent is exact.
LN2_HIGH = {"f32": _number("0x1.62e4p-1"), "f64": _number("0x1.62e42fefa38p-1")}
LN2_LOW = {"f32": _number("0x1.7f7d1cp-20"), "f64": _number("0x1.ef35793c7673p-45")}
# e**r on [-ln2/2, ln2/2]
EXP = {
    "f32": _numbers(
        "0x1p+0", "0x1p+0", "0x1.fffffep-2", "0x1.55547cp-3", "0x1.55563ap-5", "0x1.124778p-7", "0x1.6c351cp-10"
    ),
    "f64": tuple(1 / factorial(k) for k in range(14)),
}
# (e**r - 1) / r there
EXPM1 = {
    "f32": _numbers(
        "0x1p+0", "0x1p-1", "0x1.555556p-3", "0x1.5554e8p-5", "0x1.1110ccp-7", "0x1.6d4dc2p-10", "0x1.a1520cp-13"
    ),
    "f64": tuple(1 / factorial(k + 1) for k in range(14)),
}
# -log(1 - erf x) / x on [0, 3.95], and what rounding its constant term, 2/sqrt(pi), left out
ERF = {
    "f32": _numbers(
        "0x1.20dd76p+0",
        "0x1.45f2fap-1",
        "0x1.a4fa5ep-4",
        "-0x1.39cdc6p-6",
        "-0x1.505fcap-13",
        "0x1.b5004cp-10",
        "-0x1.4bc9e6p-11",
        "0x1.ed6c4ap-14",
        "-0x1.3696a8p-17",
    )
}
ERF_SLOPE_LOW = {"f32": _number("-0x1.f7ac92p-25")}
# (2 atanh s - 2 s) / s**3 in s**2, for s = (m - 1) / (m + 1) with m in [sqrt(1/2), sqrt(2)]
LOG = {
    "f32": _numbers("0x1.555556p-1", "0x1.9999ecp-2", "0x1.245bf2p-2", "0x1.ddde4ep-3"),
    "f64": tuple(2 / (2 * k + 3) for k in range(11)),
}
# (sin r - r) / r**3 and (cos r - 1 + r**2 / 2) / r**4 in r**2, |r| <= pi/4
SIN = {
    "f32": _numbers("-0x1.555556p-3", "0x1.11110ep-7", "-0x1.a013a2p-13", "0x1.6dbc32p-19"),
    "f64": tuple((-1) ** (k + 1) / factorial(2 * k + 3) for k in range(8)),
}
COS = {
    "f32": _numbers("0x1.555556p-5", "-0x1.6c16cp-10", "0x1.a015cp-16", "-0x1.25230ap-22"),
    "f64": tuple((-1) ** k / factorial(2 * k + 4) for k in range(8)),
}
# pi/2 in three parts of one number each
HALF_PI = {
    "f32": _numbers("0x1.921fb6p+0", "-0x1.777a5cp-25", "-0x1.ee59dap-50"),
    "f64": _numbers("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54", "-0x1.f1976b7ed8fbcp-110"),
}
# the same in f64, in parts whose products with numbers below 2**22 are exact
SHORT_HALF_PI = _numbers(
    "0x1.921fb54400000p+0", "0x1.0b4611a400000p-34", "0x1.13198a2c00000p-65", "0x1.01b839a25204ap-96"
)
TWO_OVER_PI = {"f32": _number("0x1.45f306p-1"), "f64": _number("0x1.45f306dc9c883p-1")}
