"""Unsupervised anomaly detection in medical images with Dirichlet process mixtures of patch embeddings."""

__version__ = "0.1.0"
