"""From encoded bytes to pixels as a tower wants them."""
