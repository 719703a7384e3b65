"""What `pretrain` consists of: crops, the objective, checkpoints, samples."""
