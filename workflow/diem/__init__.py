"""DiEM: diffusion priors from observations by expectation maximization.

The library knows nothing of Snakemake; the scripts in ``workflow/scripts`` connect the two.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization
    | Rozet et al., NeurIPS 2024, https://arxiv.org/abs/2405.13712
"""

__version__ = "0.1.0"
