"""The laboratory: many trainings, and what they show.

`sweep` trains grids of hyper-parameters and `figures` draws them; `compare` trains methods side by side; `studies` are
programs that check the theory of a paper; `claims` are what all of these leave, with the command that makes it again;
`documents` has them as tables, `reproduce` runs the commands again; `statistics` has the rules by which claims are
decided. Needs the extra `train`.
"""
