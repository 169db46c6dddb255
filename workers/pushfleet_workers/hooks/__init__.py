"""What hangs on the way of a delivery without being part of it: metrics and logs."""
