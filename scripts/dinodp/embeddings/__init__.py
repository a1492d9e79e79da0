"""Patch embeddings: one loop that computes them, files of them, and how a model sees them."""

from dinodp.embeddings.computing import embed_split
from dinodp.embeddings.embedder import Embedder
from dinodp.embeddings.reader import EmbeddingReader

__all__ = ["Embedder", "EmbeddingReader", "embed_split"]
