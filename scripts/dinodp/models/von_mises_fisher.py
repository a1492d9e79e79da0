"""The von Mises-Fisher distribution on the unit sphere in d dimensions: density C_d(kappa) exp(kappa mu'x).

Sources: Banerjee, Dhillon, Ghosh & Sra, JMLR 6, 2005 (approximation of kappa); Sra, Computational Statistics 27, 2012
(its Newton steps); Abramowitz & Stegun 9.7.7 (expansion of Bessel functions of large order).
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Floats = npt.NDArray[np.float64]

LARGE_ORDER = 50.0  # from here on the expansion is exact to 1e-9; below, scipy's function does not underflow
KAPPA_RANGE = (1e-2, 1e6)  # nearly uniform; as narrow as variances of 1e-6
WIDENING_RANGE = (0.05, 20.0)
NEWTON_STEPS = 2
LONGEST = 1 - 1e-9  # mean resultant length
# u_k(t) / t^k as polynomials in t^2, lowest power first (Abramowitz & Stegun 9.3.9)
DEBYE = (
    np.array([3.0, -5.0]) / 24,
    np.array([81.0, -462.0, 385.0]) / 1152,
    np.array([30375.0, -369603.0, 765765.0, -425425.0]) / 414720,
    np.array([4465125.0, -94121676.0, 349922430.0, -446185740.0, 185910725.0]) / 39813120,
)


def log_bessel(order: float, x: Floats) -> Floats:
    """log I_order(x), the modified Bessel function of the first kind, of x > 0, float64 [n]."""
    if order < LARGE_ORDER:
        return np.asarray(np.log(special.ive(order, x)) + x)
    z = x / order
    root = np.sqrt(1 + z * z)
    series = 1.0 + sum(
        (1 / (root * order)) ** k * np.polynomial.polynomial.polyval(1 / root**2, terms)
        for k, terms in enumerate(DEBYE, start=1)
    )
    exponent = order * (root + np.log(z / (1 + root)))
    return np.asarray(exponent - 0.5 * np.log(2 * math.pi * order * root) + np.log(series))


def log_normaliser(d: int, kappa: Floats) -> Floats:
    """log C_d(kappa) [n]."""
    order = d / 2 - 1
    return np.asarray(order * np.log(kappa) - d / 2 * math.log(2 * math.pi) - log_bessel(order, kappa))


def mean_length(d: int, kappa: Floats) -> Floats:
    """Length A_d(kappa) [n] of the mean of the distribution, the derivative of -log C_d."""
    return np.asarray(np.exp(log_bessel(d / 2, kappa) - log_bessel(d / 2 - 1, kappa)))


def concentration(d: int, length: Floats) -> Floats:
    """The kappa [n] whose mean has the ``length`` l, 0 to 1: Banerjee's (l d - l^3) / (1 - l^2), then Newton steps."""
    length = np.clip(length, 0.0, LONGEST)
    kappa = np.clip(length * (d - length**2) / (1 - length**2), *KAPPA_RANGE)
    for _ in range(NEWTON_STEPS):
        found = mean_length(d, kappa)
        slope = 1 - found**2 - (d - 1) / kappa * found
        kappa = np.clip(kappa - (found - length) / slope, *KAPPA_RANGE)
    return kappa


def widening(d: int, kappa: Floats, share: Floats, fall: float) -> float:
    """The factor c with which kappa / c explains best vectors that were drawn with other concentrations.

    ``share`` [K] of them are of each component, and the mean of kappa (1 - mu'x) is ``fall``: that of the components is
    sum share kappa (1 - A_d(kappa / c)), which rises with c. The ends of ``WIDENING_RANGE`` where none fits.
    """

    def excess(log_c: float) -> float:
        return float(share @ (kappa * (1 - mean_length(d, kappa / np.exp(log_c))))) - fall

    low, high = np.log(WIDENING_RANGE)
    if excess(low) >= 0:
        return WIDENING_RANGE[0]
    if excess(high) <= 0:
        return WIDENING_RANGE[1]
    return float(np.exp(optimize.brentq(excess, low, high, xtol=1e-4)))
