"""The `mixup-hf` command: one module a command."""
