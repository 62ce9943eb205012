"""Moving a robot for data: a motion that covers its workspace, through the command gate."""
