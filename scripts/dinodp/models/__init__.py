"""Density models of patch embeddings, and the memory bank that they replace."""

from dinodp.models.dirichlet_process import DirichletProcessMixture
from dinodp.models.empirical_bayes_mixture import EmpiricalBayesMixture
from dinodp.models.gaussian_mixture import GaussianMixture
from dinodp.models.k_center import coreset
from dinodp.models.memory_bank import MemoryBank, few_shot
from dinodp.models.von_mises_fisher_mixture import VonMisesFisherMixture

__all__ = [
    "DirichletProcessMixture",
    "EmpiricalBayesMixture",
    "GaussianMixture",
    "MemoryBank",
    "VonMisesFisherMixture",
    "coreset",
    "few_shot",
]
