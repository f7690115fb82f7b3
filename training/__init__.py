"""What every trainer shares and no model: loop, optimizer, checkpoints, metrics, masked maths, sharding rules."""
