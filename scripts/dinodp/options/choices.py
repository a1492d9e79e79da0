"""Choices that options and the mathematics share."""

from typing import Annotated, Literal, get_args

from pydantic import Field

# The paper's mixture; what its constructors and its options take where nothing is said.
REG_COVAR, STEP_RATE, CONCENTRATION = 1e-6, 0.2, 2.0

FromZero = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]

CovarianceType = Literal["diag", "full", "spherical"]
Schedule = Literal["ema", "exp"]
Init = Literal["paper", "spread"]
Resampling = Literal["after_normalisation", "before_normalisation"]
Interpolation = Literal["bicubic", "bilinear"]
Background = Literal["keep", "leave_out"]
Position = Literal["appended", "added"]
Distance = Literal["cosine", "euclidean", "mahalanobis"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)
MIXTURE_SCORES = (*DISTANCES, "log_likelihood")
BANK_SCORES = ("cosine",)
CALIBRATED_SCORES = ("calibrated_distance", "mahalanobis", "log_likelihood", "cosine")
SPHERE_SCORES = ("log_likelihood", "scaled_cosine")
