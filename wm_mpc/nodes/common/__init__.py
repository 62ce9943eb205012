"""What every node shares: parameters from dataclasses, QoS, messages, spinning and shutdown."""
