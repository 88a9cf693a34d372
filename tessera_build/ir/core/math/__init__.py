"""Vector math: exp, log, tanh, erf, sin, ... written out in the operations of Target IR, each with a stated bound."""
