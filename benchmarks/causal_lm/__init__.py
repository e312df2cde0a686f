"""A real causal language model under test: prepared, its activations kept, SAEs trained on them.

IN a GGUF file or a model folder, and a labelled pool. OUT folders that `saelect run` reads.
"""
