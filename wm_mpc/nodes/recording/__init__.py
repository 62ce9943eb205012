"""``recorder_node`` and the player: topics into bags, bags back onto topics."""
