"""Density models of patch embeddings, and the memory bank that they replace."""

from dinodp.models.dirichlet_process import DirichletProcessMixture
from dinodp.models.fitting import FitHistory, fit_mixture
from dinodp.models.memory_bank import MemoryBank, coreset, few_shot

__all__ = ["DirichletProcessMixture", "FitHistory", "MemoryBank", "coreset", "few_shot", "fit_mixture"]
