"""The networks themselves, which need PyTorch; their declarations do not."""
