"""Names and layouts of the tensors in published Gemma checkpoints: one table serves import and export."""
