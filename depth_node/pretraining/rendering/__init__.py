"""The scenes of world/ rendered in batches by torch, on a GPU or a CPU.

What ``world.render`` computes view by view in numpy, formula by formula, for a whole batch at
once; it is held to it by ``test/test_batch_rendering.py``.
"""
