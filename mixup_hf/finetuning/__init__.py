"""Fine-tuning: a whole run from a config."""
