"""What workers do: functions of (run, chunk, half-step) that read keys and write one key."""
