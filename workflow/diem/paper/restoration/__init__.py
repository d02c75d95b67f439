r"""Posterior samplers compared on image restoration, as in the paper's appendix E.

One prior, several tasks :math:`y = A x + n`, several methods (:mod:`diem.paper.methods`), several
numbers of steps. All methods walk the same times of a variance-preserving schedule from the same
noise, by steps of DDIM with :math:`\eta = 1`: two of them are steps themselves, which this schedule
was made for.

Images span [-1, 1] here, unlike everywhere else: noise levels and guidance strengths are then those
of the publications. What is read and written is in [-2, 2].

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""
