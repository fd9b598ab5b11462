"""What operators see of a replica: metrics, drift, logs."""
