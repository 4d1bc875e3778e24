"""Studies: programs that check claims of papers and write claims and figures into a folder.

`theorems` covers what can be computed of Mitliagkas et al. 2016 without training, `streaming_pca` Liu et al. 2018, and
`methods` one question about a method each. Other trainings are sweeps (`lab.sweep`) with figures (`lab.figures`). Needs
the extra `train`.
"""
