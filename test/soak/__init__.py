"""Long checks of the node's behaviour over time: ``make soak``; the short forms are test_soak.py.

Every check returns one row of benchmarks/results/soak.json: its name, its figures, and the
promises that it broke.
"""
