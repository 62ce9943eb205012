"""Room: the ground floor. What every room may use and what uses none of them."""
