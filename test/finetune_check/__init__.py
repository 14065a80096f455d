"""The figures that fine-tuning has to reach: ``make finetune-check``; what runs in a minute is in
test_finetune_run.py.

Every check returns one row of benchmarks/results/finetuning.json: its name and its figures, each
with what is asked and what was reached.
"""
