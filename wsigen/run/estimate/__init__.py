"""What a run will cost, before it starts: model calls, seconds, memory and disk."""
