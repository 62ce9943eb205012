"""``view``: a page that shows what the controller sees, plans and why; a process of its own."""
