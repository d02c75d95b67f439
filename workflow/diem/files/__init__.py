"""Files: atomic writes, HDF5, safetensors and downloads."""
