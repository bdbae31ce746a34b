"""From forge ops to launches: one folder for each backend."""
