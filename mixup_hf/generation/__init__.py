"""Generation: sentences made from a pair plan, in line, ahead of time, or read again from disk."""
