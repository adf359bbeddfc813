"""One module a verb: argument parsing and printing, nothing else."""
