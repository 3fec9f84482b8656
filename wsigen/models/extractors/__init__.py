"""The networks that turn crops into features."""
