"""InternVL and what is done with it: attention kernels, building and loading, decoding."""
