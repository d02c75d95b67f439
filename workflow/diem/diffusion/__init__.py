"""The mathematics: Gaussians, denoisers, solvers, posteriors and samplers."""
