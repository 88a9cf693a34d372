"""Coefficients of the f64 polynomials that no power series of `coefficients.py` gives.

Takes nothing; gives numbers from the constant term upwards. Invariant: they are what `derive_double.py` derives (a
test derives them again).
"""

from __future__ import annotations


def _numbers(*texts: str) -> tuple[float, ...]:
    return tuple(float.fromhex(text) for text in texts)


# (f(x) - x) / x**3 in x*x; of erf times sqrt(pi)/2
ASIN = _numbers(
    "0x1.5555555555555p-3",
    "0x1.3333333333389p-4",
    "0x1.6db6db6dac0eap-5",
    "0x1.f1c71c7a5e151p-6",
    "0x1.6e8ba121b9d5fp-6",
    "0x1.1c4efd20ebb99p-6",
    "0x1.c990a42b32b03p-7",
    "0x1.7b02ef007d23ep-7",
    "0x1.3b462d121c5d3p-7",
    "0x1.31777489dfd29p-7",
    "0x1.8dcdf11997e14p-9",
    "0x1.40c91fa8deb7dp-6",
    "-0x1.3bd7e353ddbc0p-6",
    "0x1.e58a4f278e005p-6",
)
ATAN = _numbers(
    "-0x1.5555555555555p-2",
    "0x1.9999999999997p-3",
    "-0x1.24924924920a6p-3",
    "0x1.c71c71c6dd538p-4",
    "-0x1.745d17354bd3ep-4",
    "0x1.3b13aea671ef0p-4",
    "-0x1.1110ce9b3f808p-4",
    "0x1.e1d8e103c7a90p-5",
    "-0x1.aebccb05d29e8p-5",
    "0x1.829ac6ea2558cp-5",
    "-0x1.5033bdf344ecap-5",
    "0x1.f5c7f627c1867p-6",
    "-0x1.c7c2a937ca6ffp-7",
)
SINH = _numbers(
    "0x1.5555555555555p-3",
    "0x1.1111111111111p-7",
    "0x1.a01a01a01a001p-13",
    "0x1.71de3a556f96cp-19",
    "0x1.ae6456792a77fp-26",
    "0x1.612467ccb2260p-33",
    "0x1.ae777c36fd5b6p-41",
    "0x1.99f0806c2628dp-49",
)
ERF_NEAR = _numbers(
    "-0x1.5555555555555p-2",
    "0x1.9999999999999p-4",
    "-0x1.86186186185edp-6",
    "0x1.2f684bda12091p-8",
    "-0x1.8d3018d2ac81fp-11",
    "0x1.c01c01adf7f51p-14",
    "-0x1.bbd776b6b081ap-17",
    "0x1.879fc6f434fd5p-20",
    "-0x1.3774128b941ffp-23",
    "0x1.c29097eb666a2p-27",
    "-0x1.28f652cb0d4e9p-30",
    "0x1.57056ef92101ep-34",
    "-0x1.10d02745dc066p-38",
)
# exp(x**2) * (1 - erf x) in t, x = ERF_MIDDLE + ERF_HALF * t
ERF_FAR = _numbers(
    "0x1.402bc08200833p-3",
    "-0x1.a86085f9423edp-4",
    "0x1.109603f6d38c2p-4",
    "-0x1.54383635fc89cp-5",
    "0x1.9d6b0f9911bb8p-6",
    "-0x1.e9f7d5b0e9d43p-7",
    "0x1.1b9e89fb4f855p-7",
    "-0x1.412d02d3e32a8p-8",
    "0x1.643061f7fd256p-9",
    "-0x1.8345131d28b7cp-10",
    "0x1.9d332f08cc9f5p-11",
    "-0x1.b101d82dc0df6p-12",
    "0x1.be02f388dff8ep-13",
    "-0x1.c3ea7e83928ffp-14",
    "0x1.c2ed02e47b20cp-15",
    "-0x1.bae4502f33ceep-16",
    "0x1.aa8ea5f2225d8p-17",
    "-0x1.9760c0e6d2f67p-18",
    "0x1.8e5c9a4a727d7p-19",
    "-0x1.7087ec0f1c6b7p-20",
    "0x1.09fa308d44630p-21",
    "-0x1.ed96504ea62adp-23",
    "0x1.ccf0fc75e50a5p-23",
    "-0x1.89c12abc34237p-24",
    "-0x1.64f73aea1e79ep-26",
    "0x1.0d9126c0ad027p-27",
    "0x1.15a1312aa1215p-26",
    "-0x1.ca102545eb88fp-28",
)
ERF_MIDDLE, ERF_HALF = 3.475, 2.475
# 2/sqrt(pi) and pi/2 in two parts each
ERF_SLOPE = _numbers("0x1.20dd750429b6dp+0", "0x1.1ae3a914fed80p-56")
QUARTER_TURN = _numbers("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54")
