"""What a network is trained for: loss, metrics and evaluation, one file a task."""
