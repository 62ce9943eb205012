"""Pictures of plans, films of episodes, and the report page."""
