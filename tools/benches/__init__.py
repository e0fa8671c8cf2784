"""What tools/bench.py measures, a name a module: each has `add_options(parser)` and `run(options) -> Result`."""
