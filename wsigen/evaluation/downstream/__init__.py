"""What synthetic slides are worth for a task: networks trained on real crops, on synthetic ones and on both."""
