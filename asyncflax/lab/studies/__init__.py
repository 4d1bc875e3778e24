"""Studies: programs that check claims of papers and write claims and figures into a folder.

`theorems` covers the results of Mitliagkas et al. 2016 that need no training, `streaming_pca` Liu et al. 2018, and
`methods` one question per method. Other experiments are sweeps (`lab.sweep`) with figures (`lab.figures`). Needs the
extra `train`.
"""
