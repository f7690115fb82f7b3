"""Programs of the trainers compiled ahead of time for TPU topologies, on a machine that need not have a TPU."""
