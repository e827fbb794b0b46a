"""The asynchronous REST edge."""
