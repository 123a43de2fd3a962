"""The command `fit-cli`: thin commands over the other packages; nothing imports it."""
