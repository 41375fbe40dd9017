"""One module for each system; it is imported in the process that works with it, and nowhere else."""
