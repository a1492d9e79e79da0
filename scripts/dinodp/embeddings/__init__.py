"""Patch embeddings: compute them into HDF5, and read them back as a model sees them."""

from dinodp.embeddings.computing import embed_split
from dinodp.embeddings.reader import EmbeddingReader

__all__ = ["EmbeddingReader", "embed_split"]
