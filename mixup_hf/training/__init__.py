"""Training: mixed rows inside a Trainer, or a loop of one's own."""
