"""What the tests share. Nothing here is collected."""
