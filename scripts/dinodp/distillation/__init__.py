"""Students: small networks that are trained to predict a teacher's embeddings of normal images."""
