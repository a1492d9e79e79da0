"""Density models of patch embeddings, and the memory bank that they replace."""

from dinodp.models.dirichlet_process import DirichletProcessMixture
from dinodp.models.fitting import FitHistory, fit_mixture, spread_embeddings
from dinodp.models.gaussian_mixture import GaussianMixture
from dinodp.models.memory_bank import MemoryBank, coreset, few_shot

__all__ = [
    "DirichletProcessMixture",
    "FitHistory",
    "GaussianMixture",
    "MemoryBank",
    "coreset",
    "few_shot",
    "fit_mixture",
    "spread_embeddings",
]
