"""Experiments of many training runs, and the claims that they check.

`sweep` trains grids of hyperparameters and `figures` plots them; `compare` trains methods side by side; `studies` check
the theory of papers; `claims` stores the results with the commands that reproduce them; `documents` renders claims as
tables; `reproduce` reruns the commands; `statistics` has the decision rules. Needs the extra `train`.
"""
