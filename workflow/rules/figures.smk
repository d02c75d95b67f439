TARGETS = [path for experiment in EXPERIMENTS for path in metrics_paths(experiment)]
