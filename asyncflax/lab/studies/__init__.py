"""Studies: programs that check the claims of a paper and keep the outcome, figures and `claims`, in a folder.

`theorems` is Mitliagkas et al. 2016, what can be computed without training; `streaming_pca` is Liu et al. 2018;
`methods` asks one question about one method each. Other trainings are a sweep (`asyncflax.lab.sweep`)
and its figure (`asyncflax.lab.figures`). Needs the extra `train`.
"""
