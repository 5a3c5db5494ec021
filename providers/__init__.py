"""One module per payment provider; the file name is the name in the configuration."""
