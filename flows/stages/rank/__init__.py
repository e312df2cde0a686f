"""Second pass over the vectors: config to scores, here or on Ray; FAISS retrieval.

IN config, `SpaceVectors`, `RankingInput`. OUT scores of every pool row.
"""
