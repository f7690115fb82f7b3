"""What every trainer shares and no model: the loop, the optimizer, checkpoints, metrics, masked maths, sharding rules."""
