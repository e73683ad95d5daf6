"""Makes the cumulative table of src/samplers/gaussian_table.rs (pure decimal arithmetic).

Magnitude m of a discrete Gaussian of width sigma = 3.2 over the integers:
    P(m = 0) = rho(0) / S,  P(m = k) = 2 rho(k) / S,  rho(k) = exp(-k^2 / (2 sigma^2)),
    S = sum over all integers of rho.
Entry i of the table is floor(2^63 * P(m <= i) + 1/2); the table ends where that reaches 2^63.
Prints the entries in hexadecimal, one per line.
"""
from decimal import Decimal, getcontext

getcontext().prec = 80
SIGMA_SQUARED = Decimal("3.2") ** 2


def rho(k):
    return (-Decimal(k * k) / (2 * SIGMA_SQUARED)).exp()


weights = [rho(0)] + [2 * rho(k) for k in range(1, 120)]
total = sum(weights)
cumulative = Decimal(0)
for weight in weights:
    cumulative += weight
    entry = int((cumulative / total * 2**63).to_integral_value())
    if entry >= 2**63:
        break
    print(f"0x{entry:016x},")
