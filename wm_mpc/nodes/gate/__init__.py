"""The command gate's process: small, quick to start, and alive when the controller is not."""
